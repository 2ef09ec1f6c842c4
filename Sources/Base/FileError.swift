// The outcomes of file operations that are not success, each with its errno.

/// Why a file operation was refused. The raw value is the Linux errno and the coding on the wire.
package enum FileError: UInt16, Error, Hashable, Sendable, CaseIterable {
    /// EPERM: the operation is never allowed on this object.
    case notPermitted = 1
    /// ENOENT
    case notFound = 2
    /// EINTR: the caller was interrupted while waiting.
    case interrupted = 4
    /// EIO: data could not be read from any replica, or unwritten data was lost (K6).
    case io = 5
    /// E2BIG: an extended attribute list over its bound.
    case listTooLong = 7
    /// EBADF: a handle that is not open, or not open for this.
    case badHandle = 9
    /// EAGAIN: overloaded; try again (S10).
    case busy = 11
    /// EACCES
    case accessDenied = 13
    /// EBUSY: a mount point or the root.
    case inUse = 16
    /// EEXIST
    case exists = 17
    /// EXDEV
    case crossDevice = 18
    /// ENOTDIR
    case notDirectory = 20
    /// EISDIR
    case isDirectory = 21
    /// EINVAL
    case invalid = 22
    /// EFBIG: over `Limits.fileSize`.
    case tooLarge = 27
    /// ENOSPC
    case noSpace = 28
    /// EROFS
    case readOnly = 30
    /// EMLINK
    case tooManyLinks = 31
    /// ERANGE: an extended attribute larger than the caller's buffer or the bound.
    case range = 34
    /// ENAMETOOLONG: over `Limits.nameLength` bytes.
    case nameTooLong = 36
    /// ENOSYS
    case notImplemented = 38
    /// ENOTEMPTY
    case notEmpty = 39
    /// ELOOP
    case loop = 40
    /// ENODATA: no such extended attribute.
    case noAttribute = 61
    /// EOPNOTSUPP
    case notSupported = 95
    /// ETIMEDOUT: a soft deadline passed.
    case timedOut = 110
    /// ESTALE: the inode is gone.
    case stale = 116
    /// EDQUOT
    case quota = 122

    /// The Linux errno.
    package var errno: Int32 { Int32(rawValue) }

    /// Reads two bytes; an unknown error is one too.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt16.self)
        guard let error = FileError(rawValue: value) else {
            throw .invalid(field: "file error", value: UInt64(value))
        }
        self = error
    }
}
