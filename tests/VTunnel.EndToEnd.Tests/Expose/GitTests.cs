using System.Security.Cryptography;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

public sealed class GitTests
{
    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task Git_clones_from_and_pushes_to_a_server_behind_a_forward(string protocol)
    {
        using var folder = new TempDirectory();
        var repositories = folder.MakeDirectory("repositories");
        await Tools.RunAsync("git", ["init", "--quiet", "--bare", "--initial-branch=main", "project.git"], repositories);
        await MakeFirstCommitAsync(folder, repositories);
        await using var git = await GitServer.StartAsync(repositories);
        await using var server = await ServerProgram.StartAsync();
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, git.Port, "-protocol", protocol);
        var url = $"http://127.0.0.1:{port}/project.git";

        await Tools.RunAsync("git", ["clone", "--quiet", url, "one"], folder.Path);
        Assert.Equal(
            await File.ReadAllBytesAsync(folder.File("first", "large.bin")), await File.ReadAllBytesAsync(folder.File("one", "large.bin")));
        await Tools.RunAsync("git", ["fsck", "--strict"], folder.File("one"));

        // More than git sends in one piece (http.postBuffer, 1 MiB), so the push is chunked.
        await File.WriteAllBytesAsync(folder.File("one", "more.bin"), RandomNumberGenerator.GetBytes(3_000_000));
        await Tools.RunAsync("git", ["add", "."], folder.File("one"));
        await Tools.RunAsync("git", ["commit", "--quiet", "-m", "More"], folder.File("one"));
        await Tools.RunAsync("git", ["push", "--quiet", "origin", "main"], folder.File("one"));

        await Tools.RunAsync("git", ["clone", "--quiet", url, "two"], folder.Path);
        Assert.Equal(
            await File.ReadAllBytesAsync(folder.File("one", "more.bin")), await File.ReadAllBytesAsync(folder.File("two", "more.bin")));
    }

    private static async Task MakeFirstCommitAsync(TempDirectory folder, string repositories)
    {
        var first = folder.MakeDirectory("first");
        await Tools.RunAsync("git", ["init", "--quiet", "--initial-branch=main"], first);
        await File.WriteAllBytesAsync(Path.Combine(first, "large.bin"), RandomNumberGenerator.GetBytes(4_000_000));
        for (var i = 0; i < 50; i++)
            await File.WriteAllTextAsync(Path.Combine(first, $"file-{i}.txt"), $"the content of file {i}\n");
        await Tools.RunAsync("git", ["add", "."], first);
        await Tools.RunAsync("git", ["commit", "--quiet", "-m", "First"], first);
        await Tools.RunAsync("git", ["push", "--quiet", Path.Combine(repositories, "project.git"), "main"], first);
    }
}
