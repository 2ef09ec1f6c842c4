// Why a disk's folder could not be opened.

/// Why a disk's folder could not be opened.
package enum StorageError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A system call failed on a path.
    case system(call: String, path: String, errno: Int32)
    /// Another live process has the folder open; its process id, 0 where it is not known.
    case inUse(path: String, process: Int32)

    /// For people.
    package var description: String {
        switch self {
        case .system(let call, let path, let number):
            "\(call) \(path): \(systemMessage(number)) (errno \(number))"
        case .inUse(let path, let process):
            "\(path) is in use by process \(process)"
        }
    }
}
