using System.Security.Cryptography;
using System.Text;
using VTunnel.Access;
using VTunnel.Options;

namespace VTunnel.Actors.Tests.Access;

public sealed class TokenVerifierTests
{
    private readonly Secret _alice = AccessTokens.Generate();
    private readonly Secret _bob = AccessTokens.Generate();

    [Fact]
    public void A_token_opens_its_own_entry()
    {
        var verifier = new TokenVerifier([AccessTokens.EntryFor("alice", _alice), AccessTokens.EntryFor("bob", _bob, [new PortRange(9000, 9010)])]);
        Assert.True(verifier.IsRequired);
        Assert.Equal("alice", verifier.Verify(_alice.Value)?.Name);
        var bob = verifier.Verify(_bob.Value);
        Assert.Equal("bob", bob?.Name);
        Assert.True(bob!.Allows(9010));
        Assert.False(bob.Allows(9011));
    }

    [Fact]
    public void Anything_else_opens_nothing()
    {
        var verifier = new TokenVerifier([AccessTokens.EntryFor("alice", _alice)]);
        var hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(_alice.Value)));
        foreach (var presented in new[] { null, "", " ", _bob.Value, _alice.Value[..^1], _alice.Value + "x", " " + _alice.Value, _alice.Value.ToUpperInvariant(), hash, "alice", new string('x', 100_000) })
            Assert.Null(verifier.Verify(presented));
    }

    [Fact]
    public void Without_entries_no_token_is_required_and_none_is_found()
    {
        var verifier = new TokenVerifier([]);
        Assert.False(verifier.IsRequired);
        Assert.Null(verifier.Verify(_alice.Value));
    }

    [Fact]
    public void A_fresh_token_is_recognisable_random_and_fit_for_a_header()
    {
        var tokens = Enumerable.Range(0, 100).Select(_ => AccessTokens.Generate().Value).ToHashSet();
        Assert.Equal(100, tokens.Count);
        Assert.All(tokens, token => Assert.Matches("^vtn_[A-Za-z0-9_-]{43}$", token));
        Assert.All(tokens, token => Assert.True(OptionRules.IsToken(token)));
    }

    [Fact]
    public void Neither_a_secret_nor_an_entry_prints_the_token()
    {
        Assert.DoesNotContain(_alice.Value, $"{_alice} {AccessTokens.EntryFor("alice", _alice)}", StringComparison.Ordinal);
    }
}
