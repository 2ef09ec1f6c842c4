// bench: measures parts of Martlet alone. Each prints figures for docs/PERFORMANCE.md; none is a
// test. `bench namespace [MILLIONS…]`: memory and time of the masters' state.

@preconcurrency import Glibc

@main
enum Program {
    static func main() {
        setvbuf(stdout, nil, _IOLBF, 0)
        var words = CommandLine.arguments.dropFirst()
        let sizes: [Int]
        switch words.popFirst() {
        case "namespace":
            sizes = words.isEmpty ? [1, 3, 10] : words.compactMap { Int($0) }
            guard sizes.count == max(words.count, 1) || words.isEmpty,
                sizes.allSatisfy({ (1...100).contains($0) })
            else { return usage() }
            for millions in sizes { NamespaceBench.run(files: millions * 1_000_000) }
        default: usage()
        }
    }

    private static func usage() {
        print("usage: bench namespace [MILLIONS…]   (1 to 100; 1 3 10)")
        exit(2)
    }
}
