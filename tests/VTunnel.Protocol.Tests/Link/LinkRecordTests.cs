using CsCheck;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;

namespace VTunnel.Protocol.Tests.Link;

public sealed class LinkRecordTests
{
    private static readonly LinkSecret Secret = new(new byte[LinkSecret.Length]);

    [Theory]
    [InlineData("hello_client_new")]
    [InlineData("hello_server_new")]
    [InlineData("hello_client_resume")]
    [InlineData("hello_client_features")]
    public void A_hello_cut_at_any_byte_or_with_bytes_too_many_is_refused(string name)
    {
        var whole = LinkGoldenTests.Golden(name);
        for (var length = 0; length < whole.Length; length++)
        {
            Assert.False(LinkHello.TryRead(whole.AsSpan(0, length), out var hello, out var refusal), $"{length} bytes");
            Assert.Null(hello);
            Assert.Equal(LinkRefusalCode.Malformed, refusal.Code);
            Assert.NotEmpty(refusal.Text);
        }

        Assert.False(LinkHello.TryRead([.. whole, 0], out _, out _));
    }

    [Theory]
    [InlineData("ack")]
    [InlineData("ping")]
    [InlineData("pong")]
    [InlineData("end")]
    public void A_record_of_fixed_length_is_refused_at_any_other(string name)
    {
        var whole = LinkGoldenTests.Golden(name);
        for (var length = 0; length < whole.Length; length++)
            Assert.NotEmpty(Error(whole.AsSpan(0, length)));
        Assert.Contains("it has 8", Error([.. whole, 0]), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("refuse")]
    [InlineData("bye_error")]
    public void A_record_with_text_needs_its_code(string name)
    {
        var whole = LinkGoldenTests.Golden(name);
        Assert.NotEmpty(Error(whole.AsSpan(0, 1)));
        Assert.NotEmpty(Error(whole.AsSpan(0, 2)));
        for (var length = 3; length <= whole.Length; length++)
            Assert.True(LinkRecordReader.TryRead(whole.AsSpan(0, length), out _, out _));
    }

    [Fact]
    public void Offsets_beyond_63_bits_are_refused()
    {
        Assert.Contains("2^63", Error([0x04, 0x80, 0, 0, 0, 0, 0, 0, 0]), StringComparison.Ordinal);
        Assert.Contains("2^63", Error([0x07, 0xff, 0, 0, 0, 0, 0, 0, 0]), StringComparison.Ordinal);
    }

    [Fact]
    public void Unknown_types_are_an_error_below_0x80_and_skipped_above()
    {
        foreach (var type in Enumerable.Range(0, 256).Select(value => (byte)value))
        {
            if (type is >= 1 and <= 8)
                continue;
            Assert.Equal(type >= 0x80, LinkRecordReader.TryRead([type, 1, 2, 3], out var record, out var error));
            if (type >= 0x80)
                Assert.Equal((LinkRecordType)type, record.Type);
            else
                Assert.Contains($"0x{type:x2}", error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Empty_data_is_refused_and_the_longest_is_not()
    {
        Assert.Contains("at least one byte", Error([0x03]), StringComparison.Ordinal);
        var longest = new byte[LinkRecord.MaxBytes];
        longest[0] = 0x03;
        Assert.True(LinkRecordReader.TryRead(longest, out _, out _));
        Assert.Contains("limit", Error([.. longest, 0]), StringComparison.Ordinal);
    }

    [Fact]
    public void Text_is_cut_at_its_limit_without_splitting_a_character()
    {
        // 1023 bytes and then a character of two: it does not fit.
        var message = LinkRecordWriter.Bye(SessionError.InternalError, new string('a', 1023) + "é");
        Assert.True(LinkRecordReader.TryRead(message.Span, out var record, out _));
        Assert.Equal(new string('a', 1023), record.Text);
        message.Release();

        Assert.Contains("it has 2 to 1026", Error([0x08, 0, 0, .. new byte[1025]]), StringComparison.Ordinal);
    }

    [Fact]
    public void Control_characters_in_text_do_not_reach_a_log()
    {
        var message = LinkRecordWriter.Refuse(LinkRefusalCode.Unavailable, "full\r\n[31mERROR\u0085x");
        Assert.True(LinkRecordReader.TryRead(message.Span, out var record, out _));
        Assert.Equal("full??[31mERROR?x", record.Text);
        Assert.Equal((ushort)LinkRefusalCode.Unavailable, record.Code);
        message.Release();

        Assert.True(LinkRecordReader.TryRead([0x08, 0, 8, 0xff, 0xfe, (byte)'x'], out record, out _));
        Assert.Equal("\ufffd\ufffdx", record.Text);
    }

    [Theory]
    [InlineData(0, LinkRefusalCode.Malformed, "the first record of a carrier is HELLO")]
    [InlineData(1, LinkRefusalCode.Malformed, "'VTLK'")]
    [InlineData(4, LinkRefusalCode.Malformed, "'VTLK'")]
    [InlineData(5, LinkRefusalCode.UnsupportedVersion, "link version 255 is not spoken here, only 1")]
    [InlineData(6, LinkRefusalCode.Malformed, "role 255")]
    [InlineData(7, LinkRefusalCode.Malformed, "kind 255")]
    [InlineData(8, LinkRefusalCode.Malformed, "link id")]
    [InlineData(28, LinkRefusalCode.Malformed, "next offset")]
    [InlineData(35, LinkRefusalCode.Malformed, "next offset")]
    [InlineData(52, LinkRefusalCode.Malformed, "features")]
    [InlineData(53, LinkRefusalCode.Malformed, "its fields say")]
    public void A_hello_with_a_wrong_field_is_refused_for_that_field(int index, LinkRefusalCode code, string text)
    {
        var bytes = LinkGoldenTests.Golden("hello_client_new");
        bytes[index] = 0xff;
        Assert.False(LinkHello.TryRead(bytes, out _, out var refusal));
        Assert.Equal(code, refusal.Code);
        Assert.Contains(text, refusal.Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(24, 4, "attempt 0")]
    [InlineData(36, 4, "window of 0")]
    [InlineData(40, 4, "window of 0")]
    public void A_hello_with_a_zero_that_cannot_be_is_refused(int index, int length, string text)
    {
        var bytes = LinkGoldenTests.Golden("hello_client_new");
        bytes.AsSpan(index, length).Clear();
        Assert.False(LinkHello.TryRead(bytes, out _, out var refusal));
        Assert.Contains(text, refusal.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_link_id_is_zeros_in_a_clients_hello_for_a_new_link_and_only_there()
    {
        foreach (var name in new[] { "hello_server_new", "hello_client_resume", "hello_server_resume" })
        {
            var bytes = LinkGoldenTests.Golden(name);
            bytes.AsSpan(8, LinkId.Length).Clear();
            Assert.False(LinkHello.TryRead(bytes, out _, out var refusal));
            Assert.Contains("link id", refusal.Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Reserved_feature_flags_are_ignored()
    {
        var bytes = LinkGoldenTests.Golden("hello_client_features");
        bytes[LinkHello.FixedBytes + 2] = 0xfe;
        Assert.True(LinkHello.TryRead(bytes, out var hello, out _));
        Assert.False(hello.Features[0].IsMandatory);
    }

    [Fact]
    public void Every_changed_bit_of_a_hello_that_resumes_breaks_its_proof()
    {
        var client = new LinkHello { IsResume = true, LinkId = LinkId.FromBytes(Enumerable.Repeat((byte)7, 16).ToArray()), Attempt = 3, NextOffset = 99, ReplayWindowBytes = 5, ReceiveWindowBytes = 6 };
        var message = client.ToClientMessage(Secret, out _);
        Assert.True(LinkHello.TryRead(message.Span, out var right, out _));
        Assert.True(right.ClientProves(Secret));

        for (var bit = 0; bit < message.Length * 8; bit++)
        {
            var bytes = message.Span.ToArray();
            bytes[bit / 8] ^= (byte)(1 << (bit % 8));
            // Either it is no HELLO of a client any more, or it proves nothing.
            if (LinkHello.TryRead(bytes, out var wrong, out _) && wrong.Role == LinkRole.Client)
                Assert.False(wrong.ClientProves(Secret), $"bit {bit}");
        }

        message.Release();
    }

    [Fact]
    public void A_servers_proof_is_for_one_clients_hello_only_and_no_echo_of_it()
    {
        var id = LinkId.FromBytes(Enumerable.Repeat((byte)7, 16).ToArray());
        var hello = new LinkHello { Role = LinkRole.Server, IsResume = true, LinkId = id, Attempt = 3, ReplayWindowBytes = 5, ReceiveWindowBytes = 6 };
        byte[] proof = [.. Enumerable.Repeat((byte)1, 32)];
        var message = hello.ToServerMessage(Secret, proof);
        Assert.True(LinkHello.TryRead(message.Span, out var read, out _));
        Assert.True(read.ServerProves(Secret, proof));
        Assert.False(read.ServerProves(Secret, new byte[32]));
        Assert.False(read.ClientProves(Secret));
        message.Release();
    }

    [Fact]
    public void Random_bytes_never_throw()
    {
        Gen.Byte.Array[0, 200].Sample(bytes =>
        {
            LinkRecordReader.TryRead(bytes, out _, out _);
            LinkHello.TryRead(bytes, out _, out _);
            LinkAcceptor.TryRead(bytes, [], out _, out _);
        });
    }

    [Fact]
    public void Mutated_hellos_never_throw_and_what_is_read_keeps_the_rules()
    {
        var seeds = new[] { "hello_client_new", "hello_server_new", "hello_client_resume", "hello_client_features" }
            .Select(LinkGoldenTests.Golden).ToArray();
        Gen.Select(Gen.Int[0, seeds.Length - 1], Gen.Select(Gen.Int[0, 99], Gen.Byte).Array[1, 4], Gen.Int[0, 100]).Sample((seed, changes, cut) =>
        {
            var bytes = seeds[seed].ToArray();
            foreach (var (at, value) in changes)
                bytes[at % bytes.Length] = value;
            bytes = bytes[..Math.Max(0, bytes.Length - (cut > 90 ? cut - 90 : 0))];

            if (!LinkHello.TryRead(bytes, out var hello, out var refusal))
            {
                Assert.NotEmpty(refusal.Text);
                return;
            }

            Assert.True(hello.NextOffset >= 0);
            Assert.True(hello.ReplayWindowBytes > 0 && hello.ReceiveWindowBytes > 0);
            Assert.Equal(hello.Role == LinkRole.Client && !hello.IsResume, hello.LinkId == LinkId.None);
            Assert.Equal(hello.IsResume ? LinkSecret.Length : 0, hello.Proof.Length);
            Assert.All(hello.Features, feature => Assert.True(feature.Value.Length <= LinkFeature.MaxValueBytes));
        });
    }

    [Fact]
    public void Secrets_do_not_print_themselves()
    {
        Assert.Equal("***", new LinkSecret([.. Enumerable.Repeat((byte)0x41, 32)]).ToString());
        Assert.Throws<ArgumentException>(() => new LinkSecret(new byte[31]));
        Assert.Throws<ArgumentException>(() => LinkId.FromBytes(new byte[15]));
    }

    [Fact]
    public void An_acceptor_refuses_what_no_client_says()
    {
        Assert.True(LinkAcceptor.TryRead(LinkGoldenTests.Golden("hello_client_new"), [], out var hello, out _));
        Assert.False(hello.IsResume);

        Assert.False(LinkAcceptor.TryRead(LinkGoldenTests.Golden("hello_server_new"), [], out hello, out var refusal));
        Assert.Null(hello);
        Assert.Equal(LinkRefusalCode.Malformed, refusal.Code);

        Assert.False(LinkAcceptor.TryRead(LinkGoldenTests.Golden("ping"), [], out _, out refusal));
        Assert.Equal("the first record of a carrier is HELLO, not PING", refusal.Text);

        Assert.False(LinkAcceptor.TryRead(LinkGoldenTests.Golden("hello_client_features"), [], out _, out refusal));
        Assert.Equal(LinkRefusalCode.UnsupportedFeature, refusal.Code);
        Assert.Contains("0xbeef", refusal.Text, StringComparison.Ordinal);
        Assert.True(LinkAcceptor.TryRead(LinkGoldenTests.Golden("hello_client_features"), [0xbeef], out _, out _));
    }

    private static string Error(ReadOnlySpan<byte> message)
    {
        Assert.False(LinkRecordReader.TryRead(message, out _, out var error));
        return error;
    }
}
