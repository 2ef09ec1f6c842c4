// Programs that are hard on a file system work on the mount.

import Base
import Glibc
import Testing

@Suite(.serialized) struct ApplicationTests {
    @Test("git clones onto the mount, and git fsck and status find nothing wrong")
    func git() throws {
        try Cell.with { cell in
            let source = cell.folder + "/source"
            var maker = TreeMaker(seed: 21, root: source)
            try maker.make(files: 400, large: 2)
            let git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
            try run(git + ["init", "-q", source])
            try run(git + ["-C", source, "add", "."])
            try run(git + ["-C", source, "commit", "-q", "-m", "all"])
            let clone = cell.mount + "/clone"
            try run(git + ["clone", "-q", source, clone])
            try run(git + ["-C", clone, "fsck", "--full", "--strict"])
            #expect(try run(git + ["-C", clone, "status", "--porcelain"]).output == "")
            try run(git + ["-C", clone, "gc", "-q"])
            try run(git + ["-C", clone, "fsck", "--full"])
        }
    }

    @Test("SQLite passes its integrity check after transactions, also after kill -9 of the mount")
    func sqlite() throws {
        try Cell.with { cell in
            let base = cell.mount + "/base.db"
            func sql(_ text: String) throws -> String {
                try run(["sqlite3", base, text]).output
            }
            _ = try sql(
                """
                CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO t SELECT i, randomblob(i % 700) FROM n;
                """)
            for round in 0..<10 {
                _ = try sql("UPDATE t SET v = randomblob(500) WHERE id % 10 = \(round);")
            }
            let writer = try Running(["sqlite3", base, "UPDATE t SET v = randomblob(900);"])
            usleep(30_000)
            try cell.kill("mount")
            writer.signal(SIGKILL)
            _ = try writer.wait(limit: 10)
            try cell.up()
            #expect(try sql("PRAGMA integrity_check;") == "ok\n")
            #expect(try sql("SELECT count(*) FROM t;") == "2000\n")
        }
    }

    @Test("POSIX: append, exclusive create, rename over, unlinked files, xattrs, mmap, truncate")
    func posix() throws {
        try Cell.with { cell in
            let script = """
                errno, mmap, os, sys = map(__import__, ['errno', 'mmap', 'os', 'sys'])
                os.chdir(sys.argv[1])
                def fails(code, call, *arguments):
                    try: call(*arguments)
                    except OSError as error: assert error.errno == code, error
                    else: assert False, (code, call, arguments)
                with open('a', 'ab') as f: f.write(b'one')
                with open('a', 'ab') as f: f.write(b'two')
                assert open('a', 'rb').read() == b'onetwo'
                fails(errno.EEXIST, os.open, 'a', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                fails(errno.ENOENT, os.open, 'none', os.O_RDONLY)
                open('b', 'wb').write(b'b' * 100000)
                os.rename('b', 'a'); assert os.stat('a').st_size == 100000
                f = open('a', 'r+b'); os.unlink('a'); fails(errno.ENOENT, os.stat, 'a')
                f.seek(50000); f.write(b'still'); f.flush(); os.fsync(f.fileno())
                assert os.pread(f.fileno(), 5, 50000) == b'still'; f.close()
                os.mkdir('d'); open('d/x', 'w').close()
                fails(errno.ENOTEMPTY, os.rmdir, 'd'); fails(errno.EISDIR, os.unlink, 'd')
                fails(errno.ENOTDIR, os.open, 'd/x/y', os.O_RDONLY)
                fails(errno.ENAMETOOLONG, os.mkdir, 'n' * 256); os.mkdir('n' * 255)
                fails(errno.EFBIG, os.truncate, 'd/x', 17 << 40)
                os.setxattr('d/x', 'user.k', b'v' * 1000)
                assert os.getxattr('d/x', 'user.k') == b'v' * 1000
                assert os.listxattr('d/x') == ['user.k']
                os.removexattr('d/x', 'user.k'); assert os.listxattr('d/x') == []
                with open('m', 'w+b') as f:
                    f.truncate(1 << 20)
                    with mmap.mmap(f.fileno(), 1 << 20) as m:
                        m[300000:300005] = b'mmap!'; m.flush()
                assert open('m', 'rb').read()[299999:300006] == b'\\0mmap!\\0'
                os.truncate('m', 300003); os.truncate('m', 300010)
                assert open('m', 'rb').read()[300000:] == b'mma' + b'\\0' * 7
                os.link('m', 'l'); assert os.stat('m').st_nlink == 2
                os.mkfifo('fifo'); os.symlink('m', 's'); assert os.readlink('s') == 'm'
                os.chmod('m', 0o4711); os.utime('m', ns=(1, 1234567890123456789))
                assert os.stat('m').st_mode & 0o7777 == 0o4711
                assert os.stat('m').st_mtime_ns == 1234567890123456789
                for i in range(2500): open('d/f%d' % i, 'w').close()
                assert len(os.listdir('d')) == 2501
                for n in os.listdir('d'): os.unlink('d/' + n)
                os.rmdir('d')
                v = os.statvfs('.'); assert v.f_blocks > 0 and v.f_bavail <= v.f_blocks
                """
            let outcome = try Running(["python3", "-c", script, cell.mount]).wait()
            #expect(outcome.status == 0, "\(outcome.errors)")
        }
    }

    @Test("what one mount closed, another mount that opens then sees")
    func closeToOpen() throws {
        try Cell.with { cell in
            let second = cell.folder + "/second"
            mkdir(second, 0o755)
            try cell.martlet("mount", cell.path, second)
            for round in 0..<50 {
                let bytes = noise(1 + round * 997, seed: UInt64(round))
                let places = round % 2 == 0 ? (cell.mount, second) : (second, cell.mount)
                try writeFile(places.0 + "/shared", bytes)
                #expect(readBytes(places.1 + "/shared") == bytes)
            }
        }
    }
}
