using System.Text;
using VTunnel.Access;
using VTunnel.Options;

namespace VTunnel.Actors.Tests.Access;

public sealed class TokenFileTests : IDisposable
{
    private static readonly string Hash = new('a', 64);
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("vtunnel-");
    private readonly string _path;

    public TokenFileTests() => _path = Path.Combine(_folder.FullName, "tokens.json");

    public void Dispose() => _folder.Delete(recursive: true);

    private static IReadOnlyList<AccessToken> Parse(string json) => TokenFile.Parse(Encoding.UTF8.GetBytes(json), "tokens.json");

    private static IReadOnlyList<string> Problems(string json) => Assert.Throws<TokenFileException>(() => Parse(json)).Problems;

    [Fact]
    public void What_was_added_is_read_again()
    {
        var alice = AccessTokens.EntryFor("alice", AccessTokens.Generate());
        var bob = AccessTokens.EntryFor("bob", AccessTokens.Generate(), [new PortRange(9000, 9000), new PortRange(9100, 9199)]);
        TokenFile.Add(_path, alice);
        TokenFile.Add(_path, bob);

        var read = TokenFile.Read(_path);

        Assert.Equal(["alice", "bob"], read.Select(token => token.Name));
        Assert.Equal(alice.Sha256.ToArray(), read[0].Sha256.ToArray());
        Assert.Empty(read[0].Ports);
        Assert.Equal(bob.Sha256.ToArray(), read[1].Sha256.ToArray());
        Assert.Equal(bob.Ports, read[1].Ports);
        Assert.Equal(["tokens.json"], _folder.GetFiles().Select(file => file.Name));
    }

    [Fact]
    public void A_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode()
    {
        if (OperatingSystem.IsWindows())
            return;
        TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate()));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_path));

        const UnixFileMode shared = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead;
        File.SetUnixFileMode(_path, shared);
        TokenFile.Add(_path, AccessTokens.EntryFor("bob", AccessTokens.Generate()));
        Assert.Equal(shared, File.GetUnixFileMode(_path));
    }

    [Fact]
    public void A_name_in_use_is_refused_and_the_file_stays_as_it_was()
    {
        TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate()));
        var before = File.ReadAllBytes(_path);

        var error = Assert.Throws<TokenFileException>(() => TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate())));

        Assert.Equal(["there is a token named 'alice' already; choose another name or remove that entry"], error.Problems);
        Assert.Equal(before, File.ReadAllBytes(_path));
        Assert.Single(_folder.GetFiles());
    }

    [Fact]
    public void A_file_that_another_process_is_changing_is_left_alone()
    {
        File.WriteAllText(_path + ".new", "");
        var error = Assert.Throws<TokenFileException>(() => TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate())));
        Assert.Equal([$"it is being changed by another process; if there is none, remove {_path}.new"], error.Problems);
        Assert.True(File.Exists(_path + ".new"));
        Assert.False(File.Exists(_path));
    }

    [Fact]
    public void A_file_with_faults_is_never_replaced()
    {
        File.WriteAllText(_path, "{ \"tokens\": [ { \"name\": \"x\" } ] }");
        Assert.Throws<TokenFileException>(() => TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate())));
        Assert.Equal("{ \"tokens\": [ { \"name\": \"x\" } ] }", File.ReadAllText(_path));
        Assert.Single(_folder.GetFiles());
    }

    [Fact]
    public void A_link_stays_a_link()
    {
        if (OperatingSystem.IsWindows())
            return;
        var link = Path.Combine(_folder.FullName, "link.json");
        TokenFile.Add(_path, AccessTokens.EntryFor("alice", AccessTokens.Generate()));
        File.CreateSymbolicLink(link, _path);
        TokenFile.Add(link, AccessTokens.EntryFor("bob", AccessTokens.Generate()));
        Assert.Equal(_path, new FileInfo(link).LinkTarget);
        Assert.Equal(2, TokenFile.Read(_path).Count);
    }

    [Fact]
    public void Adding_at_the_same_time_loses_no_entry()
    {
        var added = new bool[20];
        Parallel.For(0, added.Length, i =>
        {
            try
            {
                TokenFile.Add(_path, AccessTokens.EntryFor($"token-{i}", AccessTokens.Generate()));
                added[i] = true;
            }
            catch (TokenFileException e)
            {
                Assert.Contains("is being changed by another process", e.Message, StringComparison.Ordinal);
            }
        });

        Assert.Contains(true, added);
        Assert.Equal(
            Enumerable.Range(0, added.Length).Where(i => added[i]).Select(i => $"token-{i}").Order(),
            TokenFile.Read(_path).Select(token => token.Name).Order());
    }

    [Fact]
    public void A_missing_file_says_so()
    {
        Assert.Equal(["there is no such file"], Assert.Throws<TokenFileException>(() => TokenFile.Read(_path)).Problems);
        var error = Assert.Throws<TokenFileException>(() =>
            TokenFile.Add(Path.Combine(_folder.FullName, "no", "such.json"), AccessTokens.EntryFor("a", AccessTokens.Generate())));
        Assert.StartsWith("the file cannot be written: ", Assert.Single(error.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void Ports_may_be_numbers_or_texts_or_absent()
    {
        var tokens = Parse($$"""{ "tokens": [ { "name": "a", "sha256": "{{Hash}}", "ports": [ 9000, "9100-9199", "1,2" ] }, { "name": "b", "sha256": "{{Hash.ToUpperInvariant()}}" } ] }""");
        Assert.Equal(["9000", "9100-9199", "1", "2"], tokens[0].Ports.Select(range => range.ToString()));
        Assert.Empty(tokens[1].Ports);
    }

    [Fact]
    public void A_byte_order_mark_does_not_matter()
    {
        File.WriteAllText(_path, """{ "tokens": [] }""", new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        Assert.Empty(TokenFile.Read(_path));
    }

    [Fact]
    public void Everything_that_is_wrong_is_told_at_once()
    {
        Assert.Equal(
            [
                "'version' is not known; write { \"tokens\": [ { \"name\": …, \"sha256\": …, \"ports\": [ … ] } ] }",
                "entry 1: not an object; write { \"name\": …, \"sha256\": …, \"ports\": [ … ] }",
                "entry 2: 'name' is missing or not a text that says whose token it is",
                "entry 2: 'sha256' is missing or not 64 hexadecimal digits",
                "entry 3 ('plain'): 'token' is not known; an entry has name, sha256 and ports",
                "entry 3 ('plain'): 'sha256' is missing or not 64 hexadecimal digits",
                "entry 4 ('p'): 'ports' has '70000': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199",
                "entry 4 ('p'): 'ports' has 'True': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199",
                "entry 5 ('none'): 'ports' is not a list with something in it; write [\"9000\", \"9100-9199\"], or leave it out for every port",
                "entry 7 ('twice'): this name is given twice; give each token a name of its own",
            ],
            Problems($$"""
                { "version": 1, "tokens": [
                  5,
                  { "name": "", "sha256": 1 },
                  { "name": "plain", "token": "hunter2", "sha256": "zz" },
                  { "name": "p", "sha256": "{{Hash}}", "ports": [ 70000, true ] },
                  { "name": "none", "sha256": "{{Hash}}", "ports": [] },
                  { "name": "twice", "sha256": "{{Hash}}" },
                  { "name": "twice", "sha256": "{{Hash}}" }
                ] }
                """));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("{ \"tokens\": [ ], }")]
    [InlineData("{ \"tokens\": [], \"tokens\": [] }")]
    public void What_is_not_JSON_is_refused(string json) => Assert.StartsWith("not valid JSON", Assert.Single(Problems(json)), StringComparison.Ordinal);

    [Theory]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("{ \"tokens\": {} }")]
    public void JSON_of_another_shape_is_refused(string json) => Assert.StartsWith("no list of tokens; write ", Assert.Single(Problems(json)), StringComparison.Ordinal);
}
