// Files go in, by the mount and by put, and come out the same, by another mount and by get.

import Base
import Glibc
import Testing

@Suite(.serialized) struct TransferTests {
    @Test("a tree of thousands of files comes back the same from a second mount and by get")
    func tree() throws {
        try Cell.with { cell in
            let tree = cell.folder + "/tree"
            var maker = TreeMaker(seed: 1, root: tree)
            try maker.make(files: 3_000, large: 80)
            try run(["cp", "-a", tree, cell.mount + "/copied"])
            try cell.martlet("put", "-r", tree, "/put")
            let second = cell.folder + "/second"
            mkdir(second, 0o755)
            try cell.martlet("mount", cell.path, second)
            #expect(TreeComparison.differences(tree, second + "/copied") == [])
            #expect(TreeComparison.differences(tree, second + "/put") == [])
            try cell.martlet("get", "-r", "/copied", cell.folder + "/got")
            #expect(TreeComparison.differences(tree, cell.folder + "/got") == [])

            // The same again has nothing to do.
            let again = try cell.martlet("put", "-r", "--json", tree, "/put")
            #expect(number("files", in: again.output) == 0)
            #expect(number("bytes", in: again.output) == 0)
            let status = try cell.martlet("status", "--json")
            #expect(number("ratio", in: status.output)! > 1.2)
            try cell.martlet("rm", "-r", "/copied")
            #expect(names(in: second) == ["put"])
            try cell.martlet("umount", second)
            #expect(names(in: second) == [])
        }
    }

    @Test("a mount of a directory of the cell shows that directory")
    func subdirectory() throws {
        try Cell.with(mounted: false) { cell in
            try cell.martlet("mkdir", "-p", "/a/b")
            try writeFile(cell.folder + "/hello", Array("hello".utf8))
            try cell.martlet("put", cell.folder + "/hello", "/a/b/")
            mkdir(cell.mount, 0o755)
            try cell.martlet("mount", "\(cell.path):/a/b", cell.mount, "-o", "ro,cache=8MiB")
            #expect(names(in: cell.mount) == ["hello"])
            #expect(try cell.martlet("cat", "/a/b/hello").output == "hello")
            #expect(open(cell.mount + "/new", O_WRONLY | O_CREAT, 0o644) == -1)
            #expect(errno == EROFS)
        }
    }

    @Test("an interrupted put leaves no half file and does the rest when it is run again")
    func interrupted() throws {
        try Cell.with(mounted: false) { cell in
            let tree = cell.folder + "/tree"
            var maker = TreeMaker(seed: 2, root: tree)
            try maker.make(files: 600, large: 12)
            for number in [SIGINT, SIGKILL] {
                let put = try cell.start(["put", "-r", tree, "/put"])
                try eventually("put has begun") {
                    let listed = try cell.attempt(["ls", "--json", "/put"])
                    return listed.output.contains("file-")
                }
                put.signal(number)
                let status = try put.wait(limit: 20).status
                #expect(status == (number == SIGINT ? 130 : 137) || status == 0)
                if number == SIGINT {
                    let all = try cell.martlet("du", "--json", "/put")
                    #expect(!all.output.contains(".part"))
                }
            }
            try cell.martlet("put", "-r", tree, "/put")
            try cell.martlet("get", "-r", "/put", cell.folder + "/got")
            #expect(TreeComparison.differences(tree, cell.folder + "/got") == [])
        }
    }

    @Test("a sparse file is sparse again after put and get")
    func sparse() throws {
        try Cell.with(mounted: false) { cell in
            let file = cell.folder + "/sparse"
            try run(["truncate", "-s", "3G", file])
            let data = noise(100_000, seed: 3)
            let descriptor = open(file, O_WRONLY | O_CLOEXEC)
            _ = data.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, 1 << 30) }
            close(descriptor)
            let begin = now()
            try cell.martlet("put", file, "/sparse")
            #expect(now() - begin < 10)
            try cell.martlet("get", "/sparse", cell.folder + "/got")
            var status = stat()
            stat(cell.folder + "/got", &status)
            #expect(status.st_size == 3 << 30)
            #expect(status.st_blocks * 512 < 1 << 20)
            #expect(try run(["cmp", "-n", "\(2 << 30)", file, cell.folder + "/got"]).status == 0)
        }
    }
}
