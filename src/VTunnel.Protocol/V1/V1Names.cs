namespace VTunnel.Protocol.V1;

/// <summary>The words of protocol v1 on the wire, in one place for the reader and the writer.</summary>
internal static class V1Names
{
    public static ReadOnlySpan<byte> Type => "type"u8;

    public static ReadOnlySpan<byte> StreamId => "stream_id"u8;

    public static ReadOnlySpan<byte> Port => "port"u8;

    public static ReadOnlySpan<byte> LocalAddr => "local_addr"u8;

    public static ReadOnlySpan<byte> Error => "error"u8;

    public static ReadOnlySpan<byte> Data => "data"u8;

    /// <summary>The value of <c>type</c>; empty for <see cref="V1MessageType.Unknown"/>, which has none.</summary>
    public static ReadOnlySpan<byte> Of(V1MessageType type) => type switch
    {
        V1MessageType.Listen => "listen"u8,
        V1MessageType.ListenOk => "listen_ok"u8,
        V1MessageType.ListenErr => "listen_err"u8,
        V1MessageType.Connect => "connect"u8,
        V1MessageType.Data => "data"u8,
        V1MessageType.Close => "close"u8,
        V1MessageType.Ping => "ping"u8,
        V1MessageType.Pong => "pong"u8,
        _ => [],
    };

    /// <summary>The message type that <paramref name="name"/> stands for.</summary>
    public static V1MessageType TypeOf(ReadOnlySpan<byte> name)
    {
        for (var type = V1MessageType.Listen; type <= V1MessageType.Pong; type++)
        {
            if (name.SequenceEqual(Of(type)))
                return type;
        }

        return V1MessageType.Unknown;
    }
}
