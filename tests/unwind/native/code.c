/* Functions whose stacks are walked: every kind of prolog that compilers write. Each says where it will return to, so that
 * what an unwinder finds can be compared with the truth. Compiled for Windows, run anywhere: see record.sh. */

typedef void (*Callback)(void);
static Callback stop;
static void **told;

#define TELL() (*told++ = __builtin_return_address(0))
#define KEEP __attribute__((noinline))

/* Every register that a function must preserve, and every vector register. */
#define ALL "rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15"
#define VECTORS "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

KEEP static int bottom(int n) {
    TELL();
    stop();
    return n + 1;
}

KEEP static int pushes(int n) {
    TELL();
    __asm__ volatile("" ::: ALL);
    int result = bottom(n) + 1;
    __asm__ volatile("" ::: ALL);
    return result;
}

KEEP static int vectors(int n) {
    TELL();
    __asm__ volatile("" ::: VECTORS, "rbx", "rsi");
    int result = pushes(n) + 1;
    __asm__ volatile("" ::: VECTORS);
    return result;
}

KEEP static int frame_register(int n) {
    TELL();
    volatile char *room = __builtin_alloca((unsigned)n * 40 + 64);
    room[0] = (char)n;
    __asm__ volatile("" ::: "rbx", "rdi", "r14");
    int result = vectors(n) + room[0];
    return result;
}

KEEP static int large(int n) {
    TELL();
    volatile char room[200 * 1024];
    room[n] = 1;
    int result = frame_register(n) + room[n];
    return result;
}

KEEP static int middle(int n) {
    TELL();
    volatile char room[600];
    room[n] = 1;
    int result = large(n) + room[n];
    return result;
}

KEEP static int again(int n, int depth) {
    TELL();
    __asm__ volatile("" ::: "r15");
    int result = depth == 0 ? middle(n) : again(n, depth - 1);
    return result + 1;
}

/* What a compiler calls for more than a page of locals; rax holds the bytes and stays. */
__asm__(".globl ___chkstk_ms\n___chkstk_ms:\n\tret\n.globl __chkstk\n__chkstk:\n\tret\n");

__declspec(dllexport) int run(Callback at_bottom, void **addresses, int n) {
    stop = at_bottom;
    told = addresses;
    TELL();
    return again(n, 2) + 1;
}

int DllMainCRTStartup(void *instance, unsigned reason, void *reserved) {
    (void)instance, (void)reason, (void)reserved;
    return 1;
}
