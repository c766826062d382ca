using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

/// <summary>Two sessions with a delay line between them, in virtual time.</summary>
internal sealed class MuxPair
{
    private readonly TimeSpan _delay;
    private readonly Queue<(TimeSpan At, ByteSlice Frame)> _toAcceptor = new();
    private readonly Queue<(TimeSpan At, ByteSlice Frame)> _toDialer = new();

    public MuxPair(MuxOptions? options = null, TimeSpan delay = default)
    {
        _delay = delay;
        Dialer = new MuxSession(MuxRole.Dialer, options);
        Acceptor = new MuxSession(MuxRole.Acceptor, options);
    }

    public MuxSession Dialer { get; }

    public MuxSession Acceptor { get; }

    public TimeSpan Now { get; private set; }

    /// <summary>Opens a stream at the dialer and accepts it.</summary>
    public (MuxStream Dialer, MuxStream Acceptor) Open()
    {
        var stream = Dialer.Open()!;
        Run();
        while (Acceptor.TryTakeEvent(out var e))
        {
            if (e.Kind != MuxEventKind.Opened)
                continue;
            Acceptor.Accept(e.Stream!);
            Run();
            while (Dialer.TryTakeEvent(out _))
            {
            }

            return (stream, e.Stream!);
        }

        throw new InvalidOperationException("The stream did not arrive.");
    }

    /// <summary>Puts what both want to send on the line, up to so many frames each.</summary>
    public int Send(int maxFrames = int.MaxValue) => Send(Dialer, _toAcceptor, maxFrames) + Send(Acceptor, _toDialer, maxFrames);

    /// <summary>Lets time pass and delivers what is due.</summary>
    public int Deliver(TimeSpan elapsed)
    {
        Now += elapsed;
        Dialer.Now = Now;
        Acceptor.Now = Now;
        return Deliver(_toAcceptor, Acceptor) + Deliver(_toDialer, Dialer);
    }

    /// <summary>Sends and delivers until nothing moves any more.</summary>
    public void Run()
    {
        while (Send() + Deliver(_delay) > 0)
        {
        }
    }

    /// <summary>Sends as much as is allowed; gives the number of bytes.</summary>
    public static int Fill(MuxSession session, MuxStream stream, int most = int.MaxValue)
    {
        var sent = 0;
        while (sent < most && Math.Min(most - sent, session.SendAllowance(stream)) is var allowance and > 0)
        {
            var chunk = ByteChunk.Rent(ByteChunk.Headroom + allowance);
            session.Send(stream, new ByteSlice(chunk, ByteChunk.Headroom, allowance));
            sent += allowance;
        }

        return sent;
    }

    private int Send(MuxSession session, Queue<(TimeSpan, ByteSlice)> line, int maxFrames)
    {
        var count = 0;
        while (count < maxFrames && session.TryTakeFrame(out var frame))
        {
            line.Enqueue((Now + _delay, frame));
            count++;
        }

        return count;
    }

    private int Deliver(Queue<(TimeSpan At, ByteSlice Frame)> line, MuxSession session)
    {
        var count = 0;
        while (line.TryPeek(out var next) && next.At <= Now)
        {
            session.Receive(line.Dequeue().Frame);
            count++;
        }

        return count;
    }
}
