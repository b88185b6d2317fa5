/* A bare RISC-V under QEMU ("virt"): start, and semihosting. */
#include "machine.h"

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[];
int main(void);

static long semihost(long operation, const void *argument) {
    register long a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".balign 16\n.option push\n.option norvc\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop" : "+r"(a0) : "r"(a1) : "memory");
    return a0;
}

void machine_write(const char *text) { (void)semihost(0x04, text); }

void machine_exit(int status) {
    unsigned long block[2];
    block[0] = 0x20026ul;
    block[1] = (unsigned long)status;
    (void)semihost(0x20, block);
    for (;;) {}
}

__attribute__((noinline, used)) void machine_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline, used)) void machine_end(void) { __asm__ volatile("nop" ::: "memory"); }

__attribute__((used)) static void start(void) {
    uint32_t *from = data_load, *to;
    for (to = data_start; to < data_end;) { *to++ = *from++; }
    for (to = bss_start; to < bss_end;) { *to++ = 0; }
    machine_exit(main());
}

__asm__(".section .vectors,\"ax\"\n.globl _start\n_start:\n.option push\n.option norelax\nla gp, __global_pointer$\n.option pop\nla sp, stack_top\ncall start\n1: j 1b\n.text\n");
