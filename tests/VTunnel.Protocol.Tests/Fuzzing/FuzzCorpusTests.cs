using VTunnel.Fuzzing;

namespace VTunnel.Protocol.Tests.Fuzzing;

/// <summary>What fuzzers have been given and have found, once more; and everything close to it.</summary>
public sealed class FuzzCorpusTests
{
    private static readonly string Corpus = Path.Combine(AppContext.BaseDirectory, "corpus");

    public static TheoryData<string> Targets() => [.. FuzzTargets.All.Keys];

    [Theory]
    [MemberData(nameof(Targets))]
    public void Every_input_of_the_corpus_is_borne(string target)
    {
        var inputs = Inputs(target);
        Assert.NotEmpty(inputs);
        Assert.All(inputs, input => FuzzTargets.All[target](input.Bytes));
    }

    /// <summary>Each input cut short at every byte, and with every byte changed, left out and doubled.</summary>
    [Theory]
    [MemberData(nameof(Targets))]
    public void Every_neighbour_of_an_input_is_borne(string target)
    {
        foreach (var (name, bytes) in Inputs(target))
        {
            for (var at = 0; at < bytes.Length; at++)
            {
                byte[][] neighbours =
                [
                    bytes[..at],
                    [.. bytes[..at], .. bytes[(at + 1)..]],
                    [.. bytes[..at], bytes[at], .. bytes[at..]],
                    [.. bytes[..at], (byte)(bytes[at] ^ 1), .. bytes[(at + 1)..]],
                    [.. bytes[..at], (byte)(bytes[at] ^ 0x80), .. bytes[(at + 1)..]],
                    [.. bytes[..at], 0, .. bytes[(at + 1)..]],
                    [.. bytes[..at], 0xff, .. bytes[(at + 1)..]],
                ];
                foreach (var neighbour in neighbours)
                {
                    try
                    {
                        FuzzTargets.All[target](neighbour);
                    }
                    catch (Exception e)
                    {
                        Assert.Fail($"{target}, a neighbour of {name}: {Convert.ToHexString(neighbour)}\n{e}");
                    }
                }
            }
        }
    }

    [Fact]
    public void Every_folder_of_the_corpus_has_a_target() =>
        Assert.Equal(FuzzTargets.All.Keys, Directory.EnumerateDirectories(Corpus).Select(Path.GetFileName).Order(StringComparer.Ordinal));

    private static List<(string Name, byte[] Bytes)> Inputs(string target) =>
        [.. Directory.EnumerateFiles(Path.Combine(Corpus, target)).Order(StringComparer.Ordinal).Select(file => (Path.GetFileName(file), File.ReadAllBytes(file)))];
}
