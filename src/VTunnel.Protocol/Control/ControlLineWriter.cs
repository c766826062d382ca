using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Control;

/// <summary>Writes control messages and stream prefaces as lines of JSON. Reuses its buffer; not for two threads.</summary>
public sealed class ControlLineWriter
{
    // Nothing here ends up in a page, so only what JSON itself demands is escaped (newlines are among it).
    private static readonly JsonWriterOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    private readonly ArrayBufferWriter<byte> _buffer = new(256);

    /// <summary>The message as one line, newline included; the reference is the caller's.</summary>
    /// <exception cref="ArgumentException">The line would be longer than <see cref="ControlLineReader.MaxLineBytes"/>.</exception>
    public ByteSlice Write(ControlMessage message)
    {
        if (message is BridgeLine bridge)
            return WriteVerbatim(bridge.Json.Span);

        using var json = Begin();
        switch (message)
        {
            case Listen listen:
                json.WriteString("type"u8, "listen"u8);
                json.WriteNumber("port"u8, listen.Port);
                if (!string.IsNullOrEmpty(listen.LocalAddr))
                    json.WriteString("local_addr"u8, listen.LocalAddr);
                if (!string.IsNullOrEmpty(listen.Domain))
                    json.WriteString("domain"u8, listen.Domain);
                break;
            case ListenOk ok:
                json.WriteString("type"u8, "listen_ok"u8);
                json.WriteNumber("port"u8, ok.Port);
                break;
            case ListenErr err:
                json.WriteString("type"u8, "listen_err"u8);
                json.WriteNumber("port"u8, err.Port);
                json.WriteString("error"u8, err.Error);
                break;
            case Hello hello:
                json.WriteString("type"u8, "hello"u8);
                json.WriteString("agent"u8, hello.Agent);
                json.WriteString("version"u8, hello.Version);
                json.WriteStartArray("capabilities"u8);
                foreach (var capability in hello.Capabilities)
                    json.WriteStringValue(capability);
                json.WriteEndArray();
                break;
            default:
                throw new ArgumentException($"{message?.GetType().Name ?? "null"} has no form on the control stream.", nameof(message));
        }

        return End(json, ControlLineReader.MaxLineBytes);
    }

    /// <summary>The line that begins a stream; the reference is the caller's.</summary>
    /// <exception cref="ArgumentException">The port is not 1 to 65535 and no domain is meant, or the line would be longer than <see cref="StreamPreface.MaxLineBytes"/>.</exception>
    public ByteSlice Write(StreamRequest request)
    {
        if (!request.HasValidPort)
            throw new ArgumentException($"A stream is opened for a port from 1 to {StreamRequest.MaxTcpPort}, not {request.Port}.", nameof(request));

        using var json = Begin();
        json.WriteString("type"u8, "connect"u8);
        json.WriteNumber("port"u8, request.Port);
        if (!string.IsNullOrEmpty(request.Remote))
            json.WriteString("remote"u8, request.Remote);
        if (request.Visit is { } visit)
        {
            json.WriteString("host"u8, visit.Host);
            json.WriteString("speaks"u8, visit.Speaks);
        }

        if (!string.IsNullOrEmpty(request.TargetHost))
            json.WriteString("target"u8, request.TargetHost);
        return End(json, StreamPreface.MaxLineBytes);
    }

    /// <summary>The line that answers a stream of a proxy's visitor; the reference is the caller's.</summary>
    /// <param name="error">Why the target cannot be reached, cut to what a line takes; null if it is connected.</param>
    public ByteSlice WriteAnswer(string? error)
    {
        const int longest = StreamAnswer.MaxLineBytes / 8;
        using var json = Begin();
        json.WriteString("type"u8, error is null ? "connected"u8 : "connect_err"u8);
        if (error is not null)
            json.WriteString("error"u8, Cut(error, longest));
        return End(json, StreamAnswer.MaxLineBytes);
    }

    private static string Cut(string text, int length)
    {
        if (text.Length <= length)
            return text;
        return text[..(char.IsHighSurrogate(text[length - 1]) ? length - 1 : length)];
    }

    private ByteSlice WriteVerbatim(ReadOnlySpan<byte> json)
    {
        if (json.Length + 1 > ControlLineReader.MaxLineBytes)
            throw new ArgumentException($"A line of {json.Length + 1} bytes is longer than the limit of {ControlLineReader.MaxLineBytes}.");
        _buffer.ResetWrittenCount();
        _buffer.Write(json);
        _buffer.Write("\n"u8);
        return ByteChunk.Copy(_buffer.WrittenSpan);
    }

    private Utf8JsonWriter Begin()
    {
        _buffer.ResetWrittenCount();
        var json = new Utf8JsonWriter(_buffer, Options);
        json.WriteStartObject();
        return json;
    }

    private ByteSlice End(Utf8JsonWriter json, int limit)
    {
        json.WriteEndObject();
        json.Flush();
        _buffer.Write("\n"u8);
        if (_buffer.WrittenCount > limit)
            throw new ArgumentException($"A line of {_buffer.WrittenCount} bytes is longer than the limit of {limit}.");
        return ByteChunk.Copy(_buffer.WrittenSpan);
    }
}
