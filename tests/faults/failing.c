/* Be a disk that fails: where FAILING names a file that holds "write 122" or "fdatasync 5", that call fails so.

Only files whose name ends with .ndjson are touched, but by "grow 28": that fails what would make any file longer, as on
a disk that is full. The tests compile this and load it before everything else. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int ordered(const char *call)
{
    char name[32];
    int code = 0;
    const char *order = getenv("FAILING");
    FILE *file = order ? fopen(order, "r") : NULL;
    if (!file)
        return 0;
    if (fscanf(file, "%31s %d", name, &code) != 2 || strcmp(name, call) != 0)
        code = 0;
    fclose(file);
    return code;
}

static int grows(int handle, off_t end)
{
    struct stat now;
    return fstat(handle, &now) == 0 && S_ISREG(now.st_mode) && end > now.st_size ? ordered("grow") : 0;
}

static int fails(const char *call, int handle)
{
    char link[64], path[4096];
    int code = ordered(call);
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

ssize_t pwrite(int handle, const void *data, size_t size, off_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    if ((errno = grows(handle, at + (off_t)size)))
        return -1;
    return real(handle, data, size, at);
}

ssize_t pwritev(int handle, const struct iovec *parts, int many, off_t at)
{
    static ssize_t (*real)(int, const struct iovec *, int, off_t);
    off_t end = at;
    if (!real)
        real = (ssize_t (*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "pwritev");
    for (int part = 0; part < many; part++)
        end += (off_t)parts[part].iov_len;
    if ((errno = grows(handle, end)))
        return -1;
    return real(handle, parts, many, at);
}

int posix_fallocate(int handle, off_t at, off_t size)
{
    static int (*real)(int, off_t, off_t);
    int code = grows(handle, at + size);
    if (!real)
        real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
    return code ? code : real(handle, at, size);
}
