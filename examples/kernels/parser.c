/* Reads a table in text: quoted names, whole numbers, decimal fractions; sums each column. */
#include "bench.h"

enum { ROWS = 400, COLUMNS = 6, WIDTH = 40 };

static char text[ROWS * COLUMNS * WIDTH];
static size_t length;
static int64_t sums[COLUMNS];

static void setup(void) {
    static const char *const names[] = {"north", "south \"\"old\"\"", "east, upper", "west"};
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            const char *end = j == COLUMNS - 1 ? "\n" : ",";
            int number = (int)(next_random() % 100000) - 20000;
            char *at = text + length;
            if (j == 0)
                length += (size_t)snprintf(at, WIDTH, "\"%s\"%s", names[next_random() % 4], end);
            else if (j % 2)
                length += (size_t)snprintf(at, WIDTH, "%d%s", number, end);
            else
                length += (size_t)snprintf(at, WIDTH, "%d.%03d%s", number, (int)(next_random() % 1000), end);
        }
    }
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static const char *skip_quoted(const char *at, int64_t *sum) {
    int64_t hash = 7;
    for (at++; *at; at++) {
        if (*at == '"' && *++at != '"') break;
        hash = hash * 31 + *at;
        hash &= 0xffffff;
    }
    *sum += hash;
    return at;
}

static const char *read_number(const char *at, int64_t *sum) {
    int negative = *at == '-';
    int64_t value = 0, scale = 1000;
    for (at += negative; is_digit(*at); at++) value = value * 10 + (*at - '0');
    value *= 1000;
    if (*at == '.')
        for (at++; is_digit(*at); at++) {
            scale /= 10;
            value += (*at - '0') * scale;
        }
    *sum += negative ? -value : value;
    return at;
}

static void run(void) {
    int column = 0;
    memset(sums, 0, sizeof sums);
    for (const char *at = text; *at;) {
        switch (*at) {
            case '"': at = skip_quoted(at, &sums[column]); break;
            case ',': column++, at++; break;
            case '\n': column = 0, at++; break;
            default: at = read_number(at, &sums[column]);
        }
    }
}

static uint64_t checksum(void) { return hash_bytes(sums, sizeof sums); }
