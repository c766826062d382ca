using System.Security.Cryptography;
using System.Text;
using VTunnel.Protocol.Mux;
using YamuxStream = VTunnel.EndToEnd.Tests.Mux.YamuxConnection.YamuxStream;

namespace VTunnel.EndToEnd.Tests.Mux;

/// <summary>The mux against other people's yamux, in both roles, over plain TCP.</summary>
public class YamuxInteropTests
{
    private const int Window = MuxOptions.InitialWindowBytes;

    public static TheoryData<MuxRole> PeerRoles => [MuxRole.Acceptor, MuxRole.Dialer];

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task Data_flows_both_ways_beyond_the_window_and_ends_by_half_close(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stream = peers.Connection.Open()!;
        Assert.Equal(peerRole == MuxRole.Acceptor ? 1u : 2u, stream.Id);
        await stream.SendAsync("echo\n");
        var bytes = RandomNumberGenerator.GetBytes(10 * Window + 77);
        var sending = SendAndFinishAsync(stream, bytes);
        var echoed = await stream.ReadToEndAsync();
        await sending;
        await stream.Accepted;
        Assert.Equal(SHA256.HashData(bytes), SHA256.HashData(echoed));
        Assert.Equal(0, peers.Connection.StreamCount);
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task Everything_that_was_sent_arrives_there(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var bytes = RandomNumberGenerator.GetBytes(20 * Window);
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("sum\n");
        await SendAndFinishAsync(stream, bytes);
        Assert.Equal(Sum(bytes) + "\n", Text(await stream.ReadToEndAsync()));
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task Everything_that_is_sent_there_arrives_here_though_the_reader_pauses(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stalled = peers.Connection.Open()!;
        await stalled.SendAsync($"push {5 * Window}\n");
        // Another stream is served while nobody reads the first.
        var other = peers.Connection.Open()!;
        await other.SendAsync($"push {5 * Window}\n");
        Assert.Equal(Sum(Pattern(5 * Window)), Sum(await other.ReadToEndAsync()));
        Assert.Equal(Sum(Pattern(5 * Window)), Sum(await stalled.ReadToEndAsync()));
        stalled.Finish();
        other.Finish();
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task After_this_side_finished_the_peer_still_sends(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stream = peers.Connection.Open()!;
        await stream.SendAsync($"late {3 * Window}\n");
        Assert.Equal("ready\n", Text(await stream.ReadExactlyAsync(6)));
        await stream.SendAsync(new byte[100]);
        stream.Finish();
        Assert.Equal(Sum(Pattern(3 * Window)), Sum(await stream.ReadToEndAsync()));
        Assert.Equal(0, peers.Connection.StreamCount);
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task After_the_peer_finished_this_side_still_sends(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("push 10\n");
        Assert.Equal(Pattern(10), await stream.ReadToEndAsync());
        Assert.Equal(1, peers.Connection.StreamCount);
        await SendAndFinishAsync(stream, new byte[Window / 2]);
        await PingAsync(peers);
        await peers.Connection.Drained;
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task A_stream_that_the_peer_opens_is_accepted_and_served(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var command = peers.Connection.Open()!;
        await command.SendAsync($"open {4 * Window}\n");
        var stream = await peers.Connection.AcceptAsync();
        Assert.Equal(peerRole == MuxRole.Acceptor ? 2u : 1u, stream.Id);
        var bytes = await stream.ReadToEndAsync();
        Assert.Equal(Sum(Pattern(4 * Window)), Sum(bytes));

        var answer = RandomNumberGenerator.GetBytes(4 * Window);
        await SendAndFinishAsync(stream, answer);
        Assert.Equal(Sum(answer) + "\n", Text(await command.ReadToEndAsync()));
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task A_reset_there_is_a_reset_here_and_leaves_the_others_alone(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var bystander = peers.Connection.Open()!;
        await bystander.SendAsync("echo\n");
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("reset\n");
        await Assert.ThrowsAsync<IOException>(stream.ReadAsync);
        Assert.True(stream.WasReset);
        await bystander.SendAsync("still here");
        Assert.Equal("still here", Text(await bystander.ReadExactlyAsync(10)));
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task A_reset_here_is_a_reset_there_and_late_frames_do_no_harm(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        // The peer sends as fast as it may while this side gives up in the middle.
        for (var i = 0; i < 20; i++)
        {
            var stream = peers.Connection.Open()!;
            await stream.SendAsync($"push {4 * Window}\n");
            await stream.ReadAsync();
            stream.Reset();
        }

        await PingAsync(peers);
        await peers.Connection.Drained;
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task Pings_are_answered_both_ways(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        peers.Connection.SendPing();
        await peers.Connection.Measured;
        Assert.InRange(peers.Connection.RoundTrip!.Value, TimeSpan.FromTicks(1), TimeSpan.FromSeconds(30));
        await PingAsync(peers);
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task An_orderly_end_by_the_peer_is_understood(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("goaway\n");
        // The peer finishes its streams before it says goodbye.
        await stream.ReadToEndAsync();
        stream.Finish();
        await peers.Connection.GoneAway;
        Assert.Null(peers.Connection.Open());
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task An_orderly_end_by_this_side_is_understood(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("echo\nx");
        Assert.Equal("x", Text(await stream.ReadExactlyAsync(1)));
        peers.Connection.GoAway();
        Assert.Null(peers.Connection.Open());
        // This implementation closes what is open when it hears of the end.
        Assert.Equal($"closed {stream.Id}", await peers.Peer.ReadLineAsync());
    }

    [Theory]
    [MemberData(nameof(PeerRoles))]
    public async Task Two_hundred_streams_at_once_each_get_their_own_bytes(MuxRole peerRole)
    {
        await using var peers = await ConnectAsync(peerRole);
        await Task.WhenAll(Enumerable.Range(0, 200).Select(async i =>
        {
            var stream = peers.Connection.Open()!;
            await stream.SendAsync("echo\n");
            var bytes = RandomNumberGenerator.GetBytes(1000 + i * 300);
            var sending = SendAndFinishAsync(stream, bytes);
            Assert.Equal(bytes, await stream.ReadToEndAsync());
            await sending;
        }));
        Assert.Equal(0, peers.Connection.StreamCount);
    }

    [Fact]
    public async Task The_second_implementation_echoes_beyond_the_window()
    {
        await using var peers = await ConnectAsync(MuxRole.Acceptor, "yamux-js-peer.mjs");
        var stream = peers.Connection.Open()!;
        for (var i = 0; i < 2 * Window / 1024; i++)
        {
            var bytes = Pattern(1024);
            bytes[0] = (byte)i;
            await stream.SendAsync(bytes);
            Assert.Equal(bytes, await stream.ReadExactlyAsync(1024));
        }

        await stream.Accepted;
        peers.Connection.SendPing();
        await peers.Connection.Measured;
        stream.Reset();
        Assert.Equal("", peers.Peer.Errors);
    }

    [Fact]
    public async Task The_second_implementation_opens_a_stream_here()
    {
        await using var peers = await ConnectAsync(MuxRole.Dialer, "yamux-js-peer.mjs");
        var stream = await peers.Connection.AcceptAsync();
        Assert.Equal(1u, stream.Id);
        Assert.Equal("hello", Text(await stream.ReadExactlyAsync(5)));
        await stream.SendAsync("world");
        Assert.Equal("world", await peers.Peer.ReadLineAsync());
    }

    // A command on a stream of its own, answered: whatever was sent before has been read there. The peer answers before it has
    // seen the end of the command, so that the stream may still have that end to send.
    private static async Task PingAsync(Peers peers)
    {
        var stream = peers.Connection.Open()!;
        await stream.SendAsync("ping\n");
        stream.Finish();
        Assert.Equal("pong\n", Text(await stream.ReadToEndAsync()));
    }

    private static async Task SendAndFinishAsync(YamuxStream stream, byte[] bytes)
    {
        await stream.SendAsync(bytes);
        stream.Finish();
    }

    private static byte[] Pattern(int length)
    {
        var bytes = new byte[length];
        for (var i = 0; i < length; i++)
            bytes[i] = (byte)(i * 31);
        return bytes;
    }

    private static string Sum(byte[] bytes) => $"{bytes.Length} {Convert.ToHexStringLower(SHA256.HashData(bytes))}";

    private static string Text(byte[] bytes) => Encoding.UTF8.GetString(bytes);

    private static async Task<Peers> ConnectAsync(MuxRole peerRole, string script = "libp2p-peer.mjs")
    {
        var (peer, connection) = await YamuxPeer.ConnectAsync(script, peerRole);
        return new Peers(peer, connection);
    }

    private sealed record Peers(YamuxPeer Peer, YamuxConnection Connection) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            await Connection.DisposeAsync();
            await Peer.DisposeAsync();
        }
    }
}
