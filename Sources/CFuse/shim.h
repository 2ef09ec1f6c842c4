#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

// Flags of renameat2, which the C library hides behind _GNU_SOURCE.
static const unsigned int MARTLET_RENAME_NOREPLACE = 1;
static const unsigned int MARTLET_RENAME_EXCHANGE = 2;
// Flags of setxattr.
static const int MARTLET_XATTR_CREATE = 1;
static const int MARTLET_XATTR_REPLACE = 2;

#include <sys/prctl.h>

// Allocations of this process never wait for pages that it would have to write itself.
static inline int martlet_set_io_flusher(void) {
    return prctl(57 /* PR_SET_IO_FLUSHER */, 1, 0, 0, 0);
}
