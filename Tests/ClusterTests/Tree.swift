// A tree of files made of a seed, and the comparison of two trees.

import Base
import Glibc

/// Makes a tree: many small files, some large ones, holes, links, odd names, modes and times.
struct TreeMaker {
    private var random: SeededRandom
    private let root: String
    private var files: [String] = []
    private var directories: [String]

    init(seed: UInt64, root: String) {
        random = SeededRandom(seed: seed)
        self.root = root
        directories = [root]
    }

    /// `large`: how many files of a few MiB there are among them.
    mutating func make(files count: Int, large: Int) throws {
        guard mkdir(root, 0o755) == 0 else { throw TestFailure("\(root): errno \(errno)") }
        for number in 0..<max(1, count / 20) { try makeDirectory(number) }
        for number in 0..<count { try makeFile(number, isLarge: number < large) }
        for number in 0..<max(2, count / 40) { try makeLinks(number) }
        try setAttributes()
    }

    private mutating func place() -> String { directories[random.below(directories.count)] }

    private mutating func makeDirectory(_ number: Int) throws {
        let path = "\(place())/dir \(number) ä"
        if path.utf8.count > 600 { return }
        guard mkdir(path, 0o755) == 0 else { throw TestFailure("\(path): errno \(errno)") }
        directories.append(path)
    }

    private mutating func makeFile(_ number: Int, isLarge: Bool) throws {
        let name =
            number % 97 == 0 ? String(repeating: "n", count: 240) + "\(number)" : "file-\(number)"
        let path = "\(place())/\(name)"
        let size: Int
        switch random.below(20) {
        case _ where isLarge: size = (1 << 20) + random.below(12 << 20)
        case 0: size = 0
        case 1: size = Limits.block - 1 + random.below(3)
        case 2: size = Limits.block * 3 + random.below(Limits.block)
        case 3: size = 4 * Limits.page
        default: size = 1 + random.below(8 << 10)
        }
        if random.chance(1, of: 50) {
            try makeSparse(path, size)
        } else if random.chance(1, of: 2) {
            try writeFile(path, noise(size, seed: random.next()))
        } else {
            let line = Array("line \(random.next()) of a file that compresses well\n".utf8)
            let bytes = (0...(size / line.count)).flatMap { _ in line }
            try writeFile(path, Array(bytes.prefix(size)))
        }
        files.append(path)
    }

    /// Some data, a hole, some data, a hole at the end.
    private mutating func makeSparse(_ path: String, _ size: Int) throws {
        try writeFile(path, noise(min(size, 5_000), seed: random.next()))
        let file = open(path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("\(path): errno \(errno)") }
        defer { close(file) }
        let tail = noise(3_000, seed: random.next())
        let middle = off_t((1 << 20) + random.below(1 << 20))
        guard tail.withUnsafeBytes({ pwrite(file, $0.baseAddress, $0.count, middle) }) == 3_000,
            ftruncate(file, middle + (2 << 20)) == 0
        else { throw TestFailure("\(path): errno \(errno)") }
    }

    private mutating func makeLinks(_ number: Int) throws {
        let target = files[random.below(files.count)]
        guard link(target, "\(place())/hard-\(number)") == 0 else {
            throw TestFailure("link: errno \(errno)")
        }
        let text = ["nowhere/at all", "../file-\(number)", String(repeating: "x/", count: 400)]
        guard symlink(text[random.below(3)], "\(place())/soft-\(number)") == 0 else {
            throw TestFailure("symlink: errno \(errno)")
        }
    }

    /// Modes and times, directories last and from below.
    private mutating func setAttributes() throws {
        for path in files + directories.reversed() {
            let modes: [mode_t] = [0o644, 0o600, 0o755, 0o777, 0o4755, 0o444]
            let isDirectory = directories.contains(path)
            chmod(
                path,
                isDirectory ? [0o755, 0o700, 0o1777][random.below(3)] : modes[random.below(6)])
            let seconds = 1_000_000_000 + random.below(600_000_000)
            let time = timespec(tv_sec: seconds, tv_nsec: random.below(1_000_000_000))
            utimensat(AT_FDCWD, path, [time, time], AT_SYMLINK_NOFOLLOW)
        }
    }
}

/// Compares two trees: names, kinds, modes, times, sizes, content, symbolic and hard links.
struct TreeComparison {
    private let left: String
    private let right: String
    private(set) var differences: [String] = []
    private(set) var count = 0
    private var leftNames: [UInt: String] = [:]
    private var rightNames: [UInt: String] = [:]

    /// The first differences between two trees.
    static func differences(_ left: String, _ right: String) -> [String] {
        var comparison = TreeComparison(left: left, right: right)
        comparison.compare("")
        if comparison.count < 2 { comparison.differences.append("\(left) has nothing to compare") }
        return comparison.differences
    }

    private init(left: String, right: String) {
        self.left = left
        self.right = right
    }

    private mutating func differ(_ path: String, _ text: String) {
        if differences.count < 10 { differences.append("\(path): \(text)") }
    }

    private mutating func compare(_ path: String) {
        var one = stat()
        var two = stat()
        guard lstat(left + path, &one) == 0 else { return differ(path, "left errno \(errno)") }
        guard lstat(right + path, &two) == 0 else { return differ(path, "right errno \(errno)") }
        count += 1
        guard one.st_mode == two.st_mode else {
            return differ(
                path,
                "mode \(String(one.st_mode, radix: 8)) and \(String(two.st_mode, radix: 8))")
        }
        if one.st_mtim.tv_sec != two.st_mtim.tv_sec || one.st_mtim.tv_nsec != two.st_mtim.tv_nsec {
            differ(path, "times \(one.st_mtim) and \(two.st_mtim)")
        }
        if one.st_uid != two.st_uid || one.st_gid != two.st_gid { differ(path, "owner") }
        switch one.st_mode & S_IFMT {
        case S_IFDIR:
            let names = (names(in: left + path), names(in: right + path))
            if names.0 != names.1 {
                differ(path, "names \(Set(names.0).symmetricDifference(names.1).prefix(5))")
            }
            for name in names.0 { compare("\(path)/\(name)") }
        case S_IFLNK:
            if target(left + path) != target(right + path) { differ(path, "targets") }
        default: compareFiles(path, one, two)
        }
    }

    private mutating func compareFiles(_ path: String, _ one: stat, _ two: stat) {
        if one.st_size != two.st_size {
            return differ(path, "sizes \(one.st_size) and \(two.st_size)")
        }
        if one.st_nlink != two.st_nlink {
            differ(path, "links \(one.st_nlink) and \(two.st_nlink)")
        }
        if one.st_nlink > 1 {
            let first = leftNames[one.st_ino]
            let second = rightNames[two.st_ino]
            if first != second { differ(path, "linked to \(first ?? "-") and \(second ?? "-")") }
            leftNames[one.st_ino] = first ?? path
            rightNames[two.st_ino] = second ?? path
            if first != nil { return }
        }
        if let offset = firstDifference(left + path, right + path) {
            differ(path, "content at \(offset) of \(one.st_size)")
        }
    }

    private func target(_ path: String) -> [UInt8] {
        var bytes = [CChar](repeating: 0, count: 4_096)
        let count = readlink(path, &bytes, bytes.count)
        return bytes.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
    }
}

/// Where two files differ; nil if they do not.
func firstDifference(_ left: String, _ right: String) -> Int? {
    let files = (open(left, O_RDONLY | O_CLOEXEC), open(right, O_RDONLY | O_CLOEXEC))
    defer {
        close(files.0)
        close(files.1)
    }
    var buffers = ([UInt8](repeating: 0, count: 1 << 20), [UInt8](repeating: 1, count: 1 << 20))
    var offset = 0
    while true {
        let one = pread(files.0, &buffers.0, 1 << 20, off_t(offset))
        let two = pread(files.1, &buffers.1, 1 << 20, off_t(offset))
        guard one == two, one >= 0 else { return offset }
        if one == 0 { return nil }
        if memcmp(buffers.0, buffers.1, one) != 0 {
            return offset + (0..<one).first { buffers.0[$0] != buffers.1[$0] }!
        }
        offset += one
    }
}
