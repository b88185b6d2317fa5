/* A plugin of QEMU (TCG plugins, version 1): what single functions of an emulated aarch64 process execute, exactly, and what caches would miss.
 *
 * Arguments: out=FILE[,caches=1]. The process speaks to the plugin by getpid(MAGIC, word, slot, address, bytes), which the kernel takes as
 * getpid(): WATCH counts the code at an address, which must not have run yet, in a slot; REPORT writes a line
 * "slot N instructions N loads_stores N vector N branches N l1_misses N l2_misses N" to FILE and sets the slot to 0. All other code
 * runs uncounted. The caches are those of a Cortex-A72, cold at the start, lines of 64 bytes, least recently used out first: 32 KB in 2 ways
 * and 1 MB in 16. What is used of QEMU's interface is declared here, because distributions do not ship its header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(uint64_t, void (*)(uint64_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern unsigned qemu_plugin_mem_size_shift(uint32_t);
EXPORTED int qemu_plugin_version = 1;

enum { ADD = 0, NO_REGISTERS = 0, READ_AND_WRITE = 3 };
enum { GETPID = 172, MAGIC = 0x65766e6e, WATCH = 1, REPORT = 2 };
enum { INSTRUCTIONS, LOADS_STORES, VECTOR, BRANCHES, N_KINDS };
enum { N_SLOTS = 256, LINE = 64, L1_SETS = 256, L1_WAYS = 2, L2_SETS = 1024, L2_WAYS = 16 };

struct slot {
    uint64_t from, to, counts[N_KINDS], l1_misses, l2_misses;
};
static struct slot slots[N_SLOTS];
static uint64_t l1[L1_SETS][L1_WAYS], l2[L2_SETS][L2_WAYS]; /* lines + 1, the latest used first */
static bool caches;
static FILE *out;

static bool hits(uint64_t *set, int n_ways, uint64_t line) {
    int way = 0;
    bool found;
    while (way < n_ways - 1 && set[way] != line + 1) { way++; }
    found = set[way] == line + 1;
    memmove(set + 1, set, sizeof *set * (size_t)way);
    set[0] = line + 1;
    return found;
}

static void on_memory(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    struct slot *slot = data;
    uint64_t line, last = (address + (1u << qemu_plugin_mem_size_shift(info)) - 1) / LINE;
    (void)cpu;
    for (line = address / LINE; line <= last; line++) {
        if (hits(l1[line % L1_SETS], L1_WAYS, line)) { continue; }
        slot->l1_misses++;
        if (!hits(l2[line % L2_SETS], L2_WAYS, line)) { slot->l2_misses++; }
    }
}

/* Bits 28 to 25 of an instruction say what it is (Arm Architecture Reference Manual, C4.1). */
static int kind_of(uint32_t word) {
    unsigned group = word >> 25 & 15;
    if ((group & 5) == 4) { return LOADS_STORES; }
    if ((group & 7) == 7) { return VECTOR; }
    if ((group & 14) == 10) { return BRANCHES; }
    return INSTRUCTIONS;
}

static struct slot *slot_at(uint64_t address) {
    int i;
    for (i = 0; i < N_SLOTS; i++) {
        if (slots[i].from <= address && address < slots[i].to) { return &slots[i]; }
    }
    return NULL;
}

static void on_block(uint64_t id, struct qemu_plugin_tb *block) {
    size_t i, n = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (i = 0; i < n; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        struct slot *slot = slot_at(qemu_plugin_insn_vaddr(instruction));
        uint32_t word;
        int kind;
        if (!slot) { continue; }
        memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
        kind = kind_of(word);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, &slot->counts[INSTRUCTIONS], 1);
        if (kind != INSTRUCTIONS) { qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, &slot->counts[kind], 1); }
        if (caches && kind == LOADS_STORES) { qemu_plugin_register_vcpu_mem_cb(instruction, on_memory, NO_REGISTERS, READ_AND_WRITE, slot); }
    }
}

static void on_call(uint64_t id, unsigned cpu, int64_t number, uint64_t magic, uint64_t word, uint64_t n, uint64_t address, uint64_t bytes, uint64_t a6, uint64_t a7,
                    uint64_t a8) {
    struct slot *slot = &slots[n % N_SLOTS];
    (void)id, (void)cpu, (void)a6, (void)a7, (void)a8;
    if (number != GETPID || magic != MAGIC) { return; }
    if (word == WATCH) {
        memset(slot, 0, sizeof *slot);
        slot->from = address;
        slot->to = address + bytes;
    } else if (word == REPORT) {
        const uint64_t *c = slot->counts;
        fprintf(out, "slot %" PRIu64 " instructions %" PRIu64 " loads_stores %" PRIu64 " vector %" PRIu64 " branches %" PRIu64 " l1_misses %" PRIu64 " l2_misses %" PRIu64 "\n",
                n, c[INSTRUCTIONS], c[LOADS_STORES], c[VECTOR], c[BRANCHES], slot->l1_misses, slot->l2_misses);
        fflush(out);
        memset(slot->counts, 0, sizeof slot->counts);
        slot->l1_misses = slot->l2_misses = 0;
    }
}

EXPORTED int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int n, char **arguments) {
    int i;
    (void)info;
    for (i = 0; i < n; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) { return -1; }
        *value++ = 0;
        if (!strcmp(arguments[i], "out")) {
            out = fopen(value, "w");
        } else if (!strcmp(arguments[i], "caches")) {
            caches = atoi(value) != 0;
        } else {
            return -1;
        }
    }
    if (!out) { return -1; }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
