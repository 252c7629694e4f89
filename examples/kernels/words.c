/* Counts words in a hash table with open addressing, and finds the most frequent one. */
#include "bench.h"

enum { WORDS = 3000, DIFFERENT = 500, SLOTS = 1024, LENGTH = 12 };

static char words[WORDS][LENGTH];
static struct {
    const char *word;
    uint32_t hash, count;
} table[SLOTS];
static int most_frequent;

static void setup(void) {
    static char vocabulary[DIFFERENT][LENGTH];
    for (int i = 0; i < DIFFERENT; i++) {
        int letters = 2 + (int)(next_random() % (LENGTH - 3));
        for (int j = 0; j < letters; j++) vocabulary[i][j] = (char)('a' + next_random() % 26);
    }
    for (int i = 0; i < WORDS; i++) memcpy(words[i], vocabulary[next_random() % DIFFERENT], LENGTH);
}

static uint32_t hash_word(const char *word) { /* one-at-a-time, by Bob Jenkins */
    uint32_t hash = 0;
    for (; *word; word++) {
        hash += (unsigned char)*word;
        hash += hash << 10;
        hash ^= hash >> 6;
    }
    hash += hash << 3;
    hash ^= hash >> 11;
    return hash + (hash << 15);
}

static int same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

static void run(void) {
    memset(table, 0, sizeof table);
    for (int i = 0; i < WORDS; i++) {
        uint32_t hash = hash_word(words[i]), slot = hash % SLOTS;
        while (table[slot].word && !(table[slot].hash == hash && same(table[slot].word, words[i])))
            slot = (slot + 1) % SLOTS;
        table[slot].word = words[i];
        table[slot].hash = hash;
        table[slot].count++;
    }
    most_frequent = 0;
    for (int i = 1; i < SLOTS; i++)
        if (table[i].count > table[most_frequent].count) most_frequent = i;
}

static uint64_t checksum(void) {
    uint64_t hash = (uint64_t)most_frequent;
    for (int i = 0; i < SLOTS; i++) {
        uint32_t entry[] = {table[i].hash, table[i].count};
        hash = hash * 31 + hash_bytes(entry, sizeof entry);
    }
    return hash;
}
