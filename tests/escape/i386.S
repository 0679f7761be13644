/* An i386 program: tries mount, keyctl and unshare by its own table of calls. Status 42 if one was let through; it has no other way to end
 * than a signal where every call is refused, exit too. */
    .globl _start
_start:
    movl $20, %eax /* getpid */
    int $0x80
    testl %eax, %eax
    jg through
    movl $310, %eax /* unshare(CLONE_NEWUSER) */
    movl $0x10000000, %ebx
    int $0x80
    testl %eax, %eax
    jns through
    movl $288, %eax /* keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL) */
    movl $1, %ebx
    xorl %ecx, %ecx
    int $0x80
    testl %eax, %eax
    jns through
    hlt
through:
    movl $1, %eax
    movl $42, %ebx
    int $0x80
    hlt
    .section .note.GNU-stack, "", @progbits
