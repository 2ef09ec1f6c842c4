// bench: measures parts of Martlet alone. Each prints figures for docs/PERFORMANCE.md; none is a
// test.
//   bench namespace [MILLIONS]             memory and time of the masters' state
//   bench metadata KEYFILE HOST:PORT,… DIR creates and stats of a running cell; DIR: on its disk
//   bench store-start [--stored GB] [--block KIB] [--file KIB] [--tail MIB] DIR
//                                          starts of the store of a disk with so much data (100)

@preconcurrency import Glibc

@main
enum Program {
    static func main() throws {
        setvbuf(stdout, nil, _IOLBF, 0)
        let words = Array(CommandLine.arguments.dropFirst())
        switch words.first {
        case "namespace" where words.count <= 2:
            guard let millions = Int(words.last ?? "") ?? (words.count == 1 ? 1 : nil),
                (1...100).contains(millions)
            else { return usage() }
            NamespaceBench.run(files: millions * 1_000_000)
        case "metadata" where words.count == 4:
            signal(SIGPIPE, SIG_IGN)
            try MetadataBench(keyFile: words[1], masters: words[2]).run(disk: words[3])
        case "store-start":
            guard let start = StoreStart(words.dropFirst()) else { return usage() }
            start.run()
        default: usage()
        }
    }

    private static func usage() {
        print(
            "usage: bench namespace [MILLIONS] | bench metadata KEYFILE HOST:PORT,… DIR | bench "
                + "store-start [--stored GB] [--block KIB] [--file KIB] [--tail MIB] DIR")
        exit(2)
    }
}
