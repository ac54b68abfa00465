/* replay.c: run files through a fuzz target without its fuzzer: what was found once is a test for ever. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    enum { MOST = 1 << 20 };
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(MOST);
    if (!file || !data) {
        perror(path);
        return 1;
    }
    size_t size = fread(data, 1, MOST, file);
    fclose(file);
    uint8_t *exact = malloc(size ? size : 1); /* so that a sanitizer sees a step beyond its end */
    for (size_t i = 0; exact && i < size; i++)
        exact[i] = data[i];
    free(data);
    printf("%s\n", path);
    fflush(stdout);
    if (exact)
        LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

int main(int count, char **arguments)
{
    int failed = 0;
    for (int i = 1; i < count; i++)
        failed |= replay(arguments[i]);
    return failed;
}
