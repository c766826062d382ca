namespace VTunnel.Protocol.Link;

/// <summary>The first byte of every record. Types from 0x80 up that a side does not know are skipped; others end the link.</summary>
public enum LinkRecordType : byte
{
    /// <summary>The first record in each direction of every carrier: who speaks, for which link, from where on.</summary>
    Hello = 0x01,

    /// <summary>Instead of, or in answer to, a HELLO: this carrier will not be used, and why.</summary>
    Refuse = 0x02,

    /// <summary>Bytes of the stream; their offset follows from what came before.</summary>
    Data = 0x03,

    /// <summary>Everything below this offset was received and consumed.</summary>
    Ack = 0x04,

    /// <summary>A sign of life is wanted; to be answered with the same token.</summary>
    Ping = 0x05,

    /// <summary>The answer to a PING.</summary>
    Pong = 0x06,

    /// <summary>The stream ends here. Takes one offset of its own, so that it is acknowledged and replayed like a byte.</summary>
    End = 0x07,

    /// <summary>The sender is through with the link and will not resume it.</summary>
    Bye = 0x08,
}

/// <summary>Sizes that both ends of a link rely on.</summary>
public static class LinkRecord
{
    /// <summary>The longest record, its type byte included: 1 MiB. A longer one ends the link.</summary>
    public const int MaxBytes = 1024 * 1024;

    /// <summary>Bytes in front of the payload of DATA: the type.</summary>
    public const int DataHeaderBytes = 1;

    /// <summary>Free bytes before every message that a link gives to a carrier, for a header of the carrier's own: 16 at least.</summary>
    public const int CarrierHeadroomBytes = 16;

    /// <summary>Free bytes that a slice needs before it to be sent from where it lies: 17. One with fewer is copied.</summary>
    public const int HeadroomBytes = CarrierHeadroomBytes + DataHeaderBytes;

    /// <summary>The longest text in REFUSE and BYE, in bytes of UTF-8: 1024. A writer cuts there, a reader refuses more.</summary>
    public const int MaxTextBytes = 1024;

    /// <summary>The longest feature list in HELLO: 4096 bytes.</summary>
    public const int MaxFeatureBytes = 4096;
}

/// <summary>A record other than HELLO as read from the wire. The payload of DATA is what follows the first byte of the message.</summary>
/// <param name="Type">Which record; may be an unknown type from 0x80 up.</param>
/// <param name="Offset">The offset of ACK and END, at most 2^63 - 1.</param>
/// <param name="Token">The token of PING and PONG.</param>
/// <param name="Code">The code of REFUSE and BYE.</param>
/// <param name="Text">The text of REFUSE and BYE, safe to log.</param>
public readonly record struct LinkRecordFields(
    LinkRecordType Type,
    long Offset = 0,
    ulong Token = 0,
    ushort Code = 0,
    string Text = "");
