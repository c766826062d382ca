using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Framing;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V1;
using VTunnel.Protocol.V2;

namespace VTunnel.Fuzzing;

/// <summary>
/// Every reader of bytes from the wire, given bytes from anywhere. A target returns if all is well: the input was read, or
/// refused as its reader documents. It throws if a reader threw anything else, read the same bytes in another way when they
/// came in pieces, could not read what its own writer wrote, or kept a chunk.
/// </summary>
public static class FuzzTargets
{
    /// <summary>The targets by name; each has a folder of that name in the corpus.</summary>
    public static IReadOnlyDictionary<string, Action<byte[]>> All { get; } = new SortedDictionary<string, Action<byte[]>>(StringComparer.Ordinal)
    {
        ["v1-message"] = Balanced(V1Messages),
        ["websocket-frames"] = Balanced(WebSocketFrames),
        ["link-record"] = Balanced(LinkRecords),
        ["link-hello"] = Balanced(LinkHellos),
        ["mux-frames"] = Balanced(MuxFrames),
        ["control-lines"] = Balanced(ControlLines),
        ["stream-preface"] = Balanced(StreamPrefaces),
        ["stream-answer"] = Balanced(StreamAnswers),
        ["v2-dialer"] = Balanced(input => V2Sessions(MuxRole.Dialer, input)),
        ["v2-acceptor"] = Balanced(input => V2Sessions(MuxRole.Acceptor, input)),
    };

    private static Action<byte[]> Balanced(Action<byte[]> target) => input =>
    {
        using var ledger = ChunkLedger.Open();
        target(input);
        Require(ledger.Outstanding == 0, $"{ledger.Outstanding} chunks were kept");
    };

    private static void V1Messages(byte[] input)
    {
        if (!V1Reader.TryRead(input, out var message, out var error))
        {
            RequirePrintable(error);
            return;
        }

        try
        {
            if (message.Type == V1MessageType.Unknown)
                return;
            var written = V1Writer.Write(message);
            try
            {
                Require(V1Reader.TryRead(written.Span, out var again, out error), $"the writer's own message is refused: {error}");
                Require(
                    again! with { Payload = default } == message with { Payload = default } && again!.Payload.Span.SequenceEqual(message.Payload.Span),
                    $"read {message}, wrote it, read {again}");
                again!.Payload.Release();
            }
            finally
            {
                written.Release();
            }
        }
        finally
        {
            message.Payload.Release();
        }
    }

    private static void LinkRecords(byte[] input)
    {
        if (LinkRecordReader.TryRead(input, out var record, out var error))
            RequirePrintable(record.Text);
        else
            RequirePrintable(error);
    }

    private static void LinkHellos(byte[] input)
    {
        if (LinkHello.TryRead(input, out var hello, out var refusal))
            _ = hello.RefuseUnknownFeatures([]);
        else
            RequirePrintable(refusal.Text);
    }

    private static void MuxFrames(byte[] input) => RequireSameInPieces(input, cut =>
    {
        var read = new StringBuilder();
        var reader = new MuxFrameReader();
        try
        {
            foreach (var piece in Pieces(input, cut))
            {
                reader.Append(piece);
                MuxRead kind;
                while ((kind = reader.Read(out var header, out var payload)) != MuxRead.NeedMore)
                {
                    if (kind == MuxRead.Header)
                        read.Append(header).Append('\n');
                    else
                        read.Append(Convert.ToHexString(payload.Span));
                    payload.Release();
                }
            }
        }
        catch (SessionProtocolException e)
        {
            read.Append(e.Code).Append(e.Message);
        }

        reader.Clear();
        return read.ToString();
    });

    /// <summary>The first byte says whose frames the others are: a client's where it is odd.</summary>
    private static void WebSocketFrames(byte[] input)
    {
        if (input.Length > 0)
            RequireSameInPieces(input[1..], cut => ReadWebSocketFrames(input[0] % 2 == 1, input.AsMemory(1), cut));
    }

    private static string ReadWebSocketFrames(bool fromClient, ReadOnlyMemory<byte> input, int cut)
    {
        var read = new StringBuilder();
        var order = new WebSocketFrameOrder(fromClient);
        var arrived = Math.Min(cut, input.Length);
        var at = 0;
        while (true)
        {
            WebSocketFrameHeader header;
            int size;
            string? error;
            while (!WebSocketFrameHeader.TryRead(input.Span[at..arrived], out header, out size, out error) && error is null && arrived < input.Length)
                arrived += Math.Min(cut, input.Length - arrived);
            error ??= size == 0 ? null : order.Accept(header);
            if (error is not null)
            {
                RequirePrintable(error);
                return read.Append(error).ToString();
            }

            if (size == 0)
                return read.Append("incomplete").ToString();
            RequireSameFromWriter(header, size);
            at += size;
            var payload = input[at..].Span[..(int)Math.Min(header.Length, input.Length - at)].ToArray();
            if (header.MaskKey is { } key)
                UnmaskInPieces(payload, key, cut);
            read.Append(header).Append(Convert.ToHexString(payload));
            if (payload.Length < header.Length)
                return read.ToString();
            at += payload.Length;
            arrived = Math.Max(arrived, at);
            if (header.Opcode == WebSocketOpcode.Close)
            {
                if (!WebSocketGoodbye.TryRead(payload, out var status, out error))
                    RequirePrintable(error!);
                return read.Append(status).Append(error).ToString();
            }

            if (!header.IsControl && header.IsFinal)
                order.EndMessage();
        }
    }

    private static void UnmaskInPieces(Span<byte> payload, uint key, int cut)
    {
        for (var at = 0; at < payload.Length; at += Math.Min(cut, payload.Length - at))
            WebSocketMask.Apply(payload.Slice(at, Math.Min(cut, payload.Length - at)), key, at);
    }

    private static void RequireSameFromWriter(in WebSocketFrameHeader header, int size)
    {
        Require(header.Size <= size, $"a header of {size} bytes was written in {header.Size}");
        var written = new byte[header.Size];
        header.Write(written);
        Require(WebSocketFrameHeader.TryRead(written, out var again, out _, out var error) && again == header, $"read {header}, wrote it, read {again} {error}");
    }

    private static void ControlLines(byte[] input) => RequireSameInPieces(input, cut =>
    {
        var read = new StringBuilder();
        var reader = new ControlLineReader();
        var writer = new ControlLineWriter();
        try
        {
            foreach (var piece in input.Chunk(cut))
            {
                ReadOnlySpan<byte> left = piece;
                while (reader.TryRead(ref left, out var message))
                {
                    var line = writer.Write(message);
                    read.Append(Encoding.UTF8.GetString(line.Span));
                    line.Release();
                }
            }
        }
        catch (SessionProtocolException e)
        {
            RequirePrintable(e.Message);
            read.Append(e.Code).Append(e.Message);
        }

        return read.ToString();
    });

    private static void StreamPrefaces(byte[] input) => RequireSameInPieces(input, cut =>
    {
        var reader = new StreamPreface();
        var taken = 0;
        try
        {
            foreach (var piece in input.Chunk(cut))
            {
                ReadOnlySpan<byte> left = piece;
                var complete = reader.TryRead(ref left, out var request);
                taken += piece.Length - left.Length;
                if (complete)
                    return $"{request} after {taken} bytes";
                Require(left.IsEmpty, "bytes of an incomplete preface were left");
            }
        }
        catch (SessionProtocolException e)
        {
            RequirePrintable(e.Message);
            return $"{e.Code} {e.Message}";
        }

        return "incomplete";
    });

    private static void StreamAnswers(byte[] input) => RequireSameInPieces(input, cut =>
    {
        var reader = new StreamAnswer();
        var taken = 0;
        try
        {
            foreach (var piece in input.Chunk(cut))
            {
                ReadOnlySpan<byte> left = piece;
                var complete = reader.TryRead(ref left, out var error);
                taken += piece.Length - left.Length;
                if (complete)
                {
                    RequirePrintable(error ?? "");
                    RequireSameFromWriter(error);
                    return $"{error ?? "connected"} after {taken} bytes";
                }

                Require(left.IsEmpty, "bytes of an incomplete answer were left");
            }
        }
        catch (SessionProtocolException e)
        {
            RequirePrintable(e.Message);
            return $"{e.Code} {e.Message}";
        }

        return "incomplete";
    });

    private static void RequireSameFromWriter(string? error)
    {
        var line = new ControlLineWriter().WriteAnswer(error);
        ReadOnlySpan<byte> left = line.Span;
        var complete = new StreamAnswer().TryRead(ref left, out var again);
        line.Release();
        Require(complete && left.IsEmpty, "the writer's own answer is no whole line");
        Require(again == error || (again is not null && error!.StartsWith(again, StringComparison.Ordinal)), $"read {error}, wrote it, read {again}");
    }

    /// <summary>What a session sends and says may depend on when bytes come; that it ends in order may not.</summary>
    private static void V2Sessions(MuxRole role, byte[] input)
    {
        foreach (var cut in Cuts)
        {
            var session = new V2Session(role, new Hello("fuzz", "1", []));
            try
            {
                foreach (var piece in Pieces(input, cut))
                {
                    session.Receive(piece);
                    Drain(session);
                }
            }
            catch (SessionProtocolException e)
            {
                Require(e.Code != SessionError.None, "an error without a code");
                RequirePrintable(e.Message);
            }

            session.Abandon();
        }
    }

    private static void Drain(V2Session session)
    {
        while (session.TryTakeFrame(out var frame))
            frame.Release();
        while (session.TryTakeEvent(out var e))
        {
            e.Payload.Release();
            switch (e.Kind)
            {
                case StreamEventKind.Opened:
                    session.Accept(e.StreamId);
                    break;
                case StreamEventKind.Data:
                    session.Consumed(e.StreamId, e.Payload.Length);
                    break;
                case StreamEventKind.Finished:
                    session.Finish(e.StreamId);
                    break;
            }
        }

        while (session.TryTakeFrame(out var frame))
            frame.Release();
    }

    /// <summary>Whole, byte by byte, and something between.</summary>
    private static int[] Cuts => [int.MaxValue, 1, 7];

    private static void RequireSameInPieces(byte[] input, Func<int, string> read)
    {
        var whole = read(Cuts[0]);
        foreach (var cut in Cuts[1..])
        {
            var pieces = read(cut);
            Require(pieces == whole, $"whole: {whole}\nin pieces of {cut}: {pieces}");
        }
    }

    private static IEnumerable<ByteSlice> Pieces(byte[] input, int length)
    {
        foreach (var piece in input.Chunk(length))
        {
            var chunk = ByteChunk.Rent(piece.Length);
            piece.CopyTo(chunk.Array, 0);
            yield return new ByteSlice(chunk, 0, piece.Length);
        }
    }

    private static void RequirePrintable(string text) => Require(!text.Any(char.IsControl), $"a control character in: {text}");

    private static void Require(bool holds, string otherwise)
    {
        if (!holds)
            throw new FuzzFindingException(otherwise);
    }
}

/// <summary>A reader did something that it must not do.</summary>
public sealed class FuzzFindingException(string message) : Exception(message);
