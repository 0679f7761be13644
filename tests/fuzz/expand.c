/* Fuzzes LZ4 and LZO: whatever goes in, nothing outside is read or written, and no more comes out than there is room for. */
#include "expand.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const char *bytes, size_t size);

int LLVMFuzzerTestOneInput(const char *bytes, size_t size)
{
    if (size < 3)
        return 0;
    /* The first bytes say how and how much; the rest lies just as large as it is, so that a step beyond is noticed. */
    size_t most = (size_t)(unsigned char)bytes[1] * (bytes[0] & 8 ? 4097 : 17);
    char *data = malloc(size - 2), *to = malloc(most + !most);
    if (!data || !to)
        abort();
    memcpy(data, bytes + 2, size - 2);
    ssize_t made =
        bytes[0] & 1 ? lr_unlzo(data, size - 2, to, most) : lr_unlz4(data, size - 2, to, most, bytes[0] & 2);
    if (made < -1 || (made > 0 && (size_t)made > most))
        abort();
    free(data);
    free(to);
    return 0;
}
