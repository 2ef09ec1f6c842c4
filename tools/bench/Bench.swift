// bench: figures of single parts, without a cell.
//
//   bench store-start [--stored GB] [--block KIB] [--file KIB] [--tail MIB] DIR
//
// Makes the index of a disk in DIR, which must not be there, with so much stored data (100 GB) in
// blocks (64 KiB) of files (64 MiB), and MIB of log (1,024, the most there is) after the last
// checkpoint. Then starts it twice, as after a crash and as after a stop, and removes DIR. What
// records hold is left out but for the tail: the files have holes there.

import Glibc

@main
enum Program {
    static func main() {
        var words = CommandLine.arguments.dropFirst()[...]
        guard words.popFirst() == "store-start", let start = StoreStart(words) else {
            print(
                "usage: bench store-start [--stored GB] [--block KIB] [--file KIB] [--tail MIB] DIR"
            )
            exit(2)
        }
        start.run()
    }
}
