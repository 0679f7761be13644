/* shed.c: to start an app takes most of our code, to wait for its end a page or two, and that is what a process should weigh for as
 * long as the app runs. Only what cannot be written is given back: it is the file's. See madvise(2), elf(5).
 */
#include "shed.h"

#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* By the linker: the first byte of the file that we are in, be it the front door or the extension of Python. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

void lr_shed(void)
{
    uintptr_t start = (uintptr_t)&__ehdr_start, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const ElfW(Phdr) *part = (const void *)(start + __ehdr_start.e_phoff);
    for (const ElfW(Phdr) *end = part + __ehdr_start.e_phnum; part < end; part++) {
        if (part->p_type != PT_LOAD || part->p_flags & PF_W)
            continue;
        uintptr_t first = (start + part->p_vaddr) & ~(page - 1);
        madvise((void *)first, start + part->p_vaddr + part->p_memsz - first, MADV_DONTNEED);
    }
}
