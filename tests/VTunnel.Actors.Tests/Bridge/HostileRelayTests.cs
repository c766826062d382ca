using System.Text;
using VTunnel.Bridge.Relay;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>A relay that does what it likes with what it passes on.</summary>
public sealed class HostileRelayTests
{
    private const int Length = 20_000_000;

    /// <summary>The handshake is over by then, so what is tampered with is the session.</summary>
    private const int TamperedMessage = 40;

    [Fact]
    public async Task What_a_relay_records_has_nothing_of_what_is_said()
    {
        const string Marker = "the-marker-that-nobody-may-see-in-transit";
        var recorded = new MemoryStream();
        var gate = new Lock();
        var options = new RelayOptions
        {
            Tap = (_, message) =>
            {
                lock (gate)
                    recorded.Write(message.Span);
                return [message];
            },
        };
        await using var house = await BridgeHouse.StartAsync(options);
        await using var service = TargetServer.StartEcho();
        var port = FreePorts.Next();
        var publisher = await house.JoinAsync("office");
        var user = house.CreateUser(publisher, "alice", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(publisher);
        await house.ConnectAsync(user);
        using var visitor = await Payload.ConnectAsync(port);
        var said = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Repeat(Marker, 1000)));
        await visitor.GetStream().WriteAsync(said);
        var back = new byte[said.Length];
        await visitor.GetStream().ReadExactlyAsync(back).AsTask().WaitAsync(TestTimeouts.Step);
        Assert.Equal(said, back);

        byte[] seen;
        lock (gate)
            seen = recorded.ToArray();
        Assert.True(seen.Length > 2 * said.Length, "the relay did not see the traffic");
        Assert.False(seen.AsSpan().IndexOf(Encoding.ASCII.GetBytes(Marker[..16])) >= 0, "the marker went over the relay in plain text");
        Assert.False(seen.AsSpan().IndexOf("alice"u8) >= 0, "the user's name went over the relay in plain text");
        Assert.False(seen.AsSpan().IndexOf("bridge_grants"u8) >= 0, "control messages went over the relay in plain text");
    }

    public static TheoryData<string> Ways => ["alter", "replay", "reorder", "drop", "insert"];

    [Theory]
    [MemberData(nameof(Ways))]
    public async Task Tampering_ends_the_connection_with_an_error_and_changes_no_byte(string way)
    {
        var count = 0;
        byte[]? held = null;
        var options = new RelayOptions
        {
            Tap = (fromConsumer, message) =>
            {
                if (fromConsumer)
                    return [message];
                var number = Interlocked.Increment(ref count);
                if (way == "reorder" && number == TamperedMessage)
                {
                    held = message.ToArray();
                    return [];
                }

                if (held is { } late)
                {
                    held = null;
                    return [message, late];
                }

                if (number != TamperedMessage)
                    return [message];
                var altered = message.ToArray();
                altered[altered.Length / 2] ^= 1;
                return way switch
                {
                    "alter" => [altered],
                    "replay" => [message, message],
                    "insert" => [message, new byte[] { 23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 }],
                    _ => [],
                };
            },
        };
        await using var house = await BridgeHouse.StartAsync(options);
        await using var service = TargetServer.StartEcho();
        var port = FreePorts.Next();
        var publisher = await house.JoinAsync("office");
        var user = house.CreateUser(publisher, "alice", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(publisher);
        await house.ConnectAsync(user);
        using var visitor = await Payload.ConnectAsync(port);

        await Payload.EchoAsync(visitor.GetStream(), Length).WaitAsync(TestTimeouts.Long);

        Assert.True(Volatile.Read(ref count) > TamperedMessage, "nothing was tampered with");
        await house.LoggedAsync("connect-", "has lost its connection");
    }

    [Fact]
    public async Task A_session_that_is_always_tampered_with_never_comes_up()
    {
        var options = new RelayOptions
        {
            Tap = (_, message) =>
            {
                var altered = message.ToArray();
                altered[^1] ^= 0x80;
                return [altered];
            },
        };
        await using var house = await BridgeHouse.StartAsync(options);
        var publisher = await house.JoinAsync("office");
        var user = house.CreateUser(publisher, "alice", new BridgeGrant(FreePorts.Next(), "127.0.0.1", 1));
        house.Serve(publisher);
        var consumer = await house.ConnectAsync(user);

        await house.LoggedAsync("No connection to office", "TLS with the publisher failed");
        Assert.False((await consumer.GetStateAsync()).IsConnected);
    }
}
