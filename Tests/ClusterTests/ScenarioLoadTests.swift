// Where new data goes while one disk is slow: placement by load on real processes.

import Base
import Testing

@Suite(.serialized) struct ScenarioLoadTests {
    @Test(
        "LOAD: new files keep off a disk that is slow but not so slow that it has to leave",
        .enabled(if: Scenario.isChosen("LOAD")))
    func slowDisk() throws {
        try Scenario.run("LOAD") { scenario in
            let cell = scenario.cell
            try cell.makeLossy(cell.members.filter { $0.hasPrefix("chunkserver") })
            try cell.settled()
            let files = 40
            func share(_ round: String) throws -> Int {
                for file in 0..<files {
                    try writeFile(
                        "\(cell.mount)/\(round)-\(file)", noise(64 << 10, seed: UInt64(file)),
                        sync: true)
                }
                return try (0..<files).count { file in
                    let place = try scenario.place(of: "/\(round)-\(file)")
                    return ([place.primary] + place.backups).contains("chunkserver-4")
                }
            }
            let before = try share("even")
            try cell.tellDisk(of: "chunkserver-4", "rate 5000000")
            try scenario.workload.progress(syncs: 20, limit: 60)
            let slow = try share("slow")
            print("    LOAD: chunkserver-4 got \(before) of \(files), and \(slow) when it was slow")
            #expect(slow * 2 < before)
            try cell.tellDisk(of: "chunkserver-4", "rate 0")
        }
    }
}
