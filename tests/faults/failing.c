/* Be a disk that fails: where FAILING names a file that holds "write 122" or "fdatasync 5", that call fails so.

Only files whose name ends with .ndjson are touched. The tests compile this and load it before everything else. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char *call, int handle)
{
    char link[64], path[4096], name[32];
    int code = 0;
    const char *order = getenv("FAILING");
    FILE *file = order ? fopen(order, "r") : NULL;
    if (!file)
        return 0;
    if (fscanf(file, "%31s %d", name, &code) != 2 || strcmp(name, call) != 0)
        code = 0;
    fclose(file);
    if (!code)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 7 || memcmp(path + length - 7, ".ndjson", 7) != 0)
        return 0;
    return code;
}

ssize_t write(int handle, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if ((errno = fails("write", handle)))
        return -1;
    return real(handle, data, size);
}

int fdatasync(int handle)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if ((errno = fails("fdatasync", handle)))
        return -1;
    return real(handle);
}
