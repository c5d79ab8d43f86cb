/* Loads the DLL made of code.c as Windows would, runs it, and writes down what the CPU looked like at its bottom, what lay
 * on the stack, and where every function said that it would return to. Linux x64. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t registers[17];
static void *told[32];
static uint8_t *image;
static uint64_t limit;

__attribute__((ms_abi, noinline, used)) void save(void) {
    uint64_t rsp = registers[4];
    printf("base %lx\n", (unsigned long)image);
    printf("rip %lx\n", (unsigned long)registers[16]);
    for (int number = 0; number < 16; number++)
        printf("r%d %lx\n", number, (unsigned long)registers[number]);
    for (int number = 0; told[number]; number++)
        printf("returns %lx\n", (unsigned long)told[number]);
    printf("stack %lx\n", (unsigned long)rsp);
    /* Words alone that are not 0, since most of the stack is room that nobody wrote to. */
    for (uint64_t at = rsp; at < limit; at += 8)
        if (*(uint64_t *)at)
            printf("%lx %lx\n", (unsigned long)(at - rsp), (unsigned long)*(uint64_t *)at);
}

/* Entered by a call from the DLL: what stands behind that call is its program counter. */
__asm__(".text\nbottom:\n"
        "\tmov %rax, registers(%rip)\n\tmov %rcx, registers+8(%rip)\n\tmov %rdx, registers+16(%rip)\n"
        "\tmov %rbx, registers+24(%rip)\n\tlea 8(%rsp), %rax\n\tmov %rax, registers+32(%rip)\n"
        "\tmov %rbp, registers+40(%rip)\n\tmov %rsi, registers+48(%rip)\n\tmov %rdi, registers+56(%rip)\n"
        "\tmov %r8, registers+64(%rip)\n\tmov %r9, registers+72(%rip)\n\tmov %r10, registers+80(%rip)\n"
        "\tmov %r11, registers+88(%rip)\n\tmov %r12, registers+96(%rip)\n\tmov %r13, registers+104(%rip)\n"
        "\tmov %r14, registers+112(%rip)\n\tmov %r15, registers+120(%rip)\n"
        "\tmov (%rsp), %rax\n\tmov %rax, registers+128(%rip)\n"
        "\tsub $40, %rsp\n\tcall save\n\tadd $40, %rsp\n\tret\n");
extern void bottom(void);

static uint32_t u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

int main(int count, char **arguments) {
    static uint8_t file[1 << 20];
    FILE *in = count > 1 ? fopen(arguments[1], "rb") : NULL;
    if (!in || !fread(file, 1, sizeof file, in))
        return 1;
    uint8_t *pe = file + u32(file + 0x3c);
    image = mmap((void *)0x180000000, u32(pe + 80), PROT_READ | PROT_WRITE | PROT_EXEC,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (image == MAP_FAILED)
        return 2;
    memcpy(image, file, u32(pe + 84));
    uint8_t *section = pe + 24 + (pe[20] | pe[21] << 8);
    for (int number = pe[6] | pe[7] << 8; number; number--, section += 40)
        memcpy(image + u32(section + 12), file + u32(section + 20), u32(section + 16));
    uint8_t *exports = image + u32(pe + 136);
    int (__attribute__((ms_abi)) *run)(void (*)(void), void **, int) =
        (void *)(image + u32(image + u32(exports + 28)));
    limit = (uint64_t)__builtin_frame_address(0);
    run(bottom, told, 3);
    return 0;
}
