using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.V1;

/// <summary>The message types of protocol v1.</summary>
public enum V1MessageType
{
    /// <summary>A type that this version does not know; ignored.</summary>
    Unknown,

    /// <summary><c>listen</c>: port, local_addr.</summary>
    Listen,

    /// <summary><c>listen_ok</c>: port.</summary>
    ListenOk,

    /// <summary><c>listen_err</c>: port, error.</summary>
    ListenErr,

    /// <summary><c>connect</c>: stream_id, port.</summary>
    Connect,

    /// <summary><c>data</c>: stream_id, data.</summary>
    Data,

    /// <summary><c>close</c>: stream_id.</summary>
    Close,

    /// <summary><c>ping</c>.</summary>
    Ping,

    /// <summary><c>pong</c>.</summary>
    Pong,
}

/// <summary>One message of protocol v1. Fields that a type does not use are zero, null or empty.</summary>
/// <param name="Type">Which message.</param>
/// <param name="StreamId">The stream, from 1 up; 0 where the type has none.</param>
/// <param name="Port">The listened port; any integer on input, checked by the receiver.</param>
/// <param name="Text"><c>local_addr</c> of a listen, <c>error</c> of a listen_err.</param>
/// <param name="Payload">The decoded bytes of a data message; whoever holds the message holds the reference.</param>
public sealed record V1Message(
    V1MessageType Type,
    uint StreamId = 0,
    int Port = 0,
    string? Text = null,
    ByteSlice Payload = default);
