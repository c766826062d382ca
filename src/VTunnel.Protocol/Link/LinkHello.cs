using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Link;

/// <summary>Which end of a link. The client dials.</summary>
public enum LinkRole : byte
{
    /// <summary>The side that opens carriers.</summary>
    Client = 0,

    /// <summary>The side that accepts carriers, names links and issues secrets.</summary>
    Server = 1,
}

/// <summary>The first record in each direction of a carrier.</summary>
/// <remarks>
/// Layout, numbers big-endian: type 0x01 (1), magic <c>VTLK</c> (4), version 1 (1), role (1), kind: 0 new, 1 resume (1),
/// link id (16), attempt (4), next offset (8), replay window (4), receive window (4), keepalive in ms (4), resume window
/// in ms (4), length of the features (2), features (n), and then 32 bytes: the secret in a server's HELLO for a new link,
/// nothing in a client's, the proof in either HELLO that resumes.
/// </remarks>
public sealed class LinkHello
{
    /// <summary>The only version of the link so far.</summary>
    public const byte Version = 1;

    internal const int FixedBytes = 54;

    private const uint Magic = 0x56544C4B;

    /// <summary>Who speaks.</summary>
    public LinkRole Role { get; init; }

    /// <summary>Whether the carrier continues a link that exists.</summary>
    public bool IsResume { get; init; }

    /// <summary>The link; <see cref="LinkId.None"/> in a client's HELLO for a new one.</summary>
    public LinkId LinkId { get; init; }

    /// <summary>Rises with every carrier that the client opens for a link, from 1; the server repeats it.</summary>
    public uint Attempt { get; init; }

    /// <summary>The offset of the next byte that this side expects: what is below it need not be sent again.</summary>
    public long NextOffset { get; init; }

    /// <summary>What this side holds for replay at present, in bytes: the peer acknowledges at least every quarter of it.</summary>
    public int ReplayWindowBytes { get; init; }

    /// <summary>The most bytes that the peer may have sent beyond this side's last ACK.</summary>
    public int ReceiveWindowBytes { get; init; }

    /// <summary>How long this side bears silence before it asks; zero for never. The link uses the shorter of both that is not zero.</summary>
    public TimeSpan KeepAliveInterval { get; init; }

    /// <summary>How long this side holds a link without a carrier; zero for not at all. The link uses the shorter of both.</summary>
    public TimeSpan ResumeWindow { get; init; }

    /// <summary>Extensions in the order of the wire.</summary>
    public IReadOnlyList<LinkFeature> Features { get; init; } = [];

    /// <summary>The secret in a server's HELLO for a new link, else null.</summary>
    public LinkSecret? Secret { get; private init; }

    /// <summary>Empty unless this HELLO resumes.</summary>
    internal ReadOnlyMemory<byte> Proof { get; private init; }

    /// <summary>What the proof covers: everything before it.</summary>
    internal ReadOnlyMemory<byte> Proven { get; private init; }

    /// <summary>Whether a record is a HELLO at all, by its first byte.</summary>
    public static bool IsHello(ReadOnlySpan<byte> message) => !message.IsEmpty && message[0] == (byte)LinkRecordType.Hello;

    /// <summary>Reads a HELLO. Whether its proof is right is not looked at: that takes the link.</summary>
    /// <param name="message">The whole message as the carrier delivered it.</param>
    /// <param name="hello">The fields.</param>
    /// <param name="refusal">What to answer if it is not a HELLO by the rules, or of another version.</param>
    public static bool TryRead(
        ReadOnlySpan<byte> message,
        [NotNullWhen(true)] out LinkHello? hello,
        [NotNullWhen(false)] out LinkRefusal? refusal)
    {
        hello = null;
        if (!IsHello(message))
        {
            var found = message.IsEmpty ? "an empty message" : LinkRecordReader.NameOf((LinkRecordType)message[0]);
            return Fail($"the first record of a carrier is HELLO, not {found}", out refusal);
        }

        if (message.Length < 6 || BinaryPrimitives.ReadUInt32BigEndian(message[1..]) != Magic)
            return Fail("HELLO does not go on with 'VTLK' and a version; the peer speaks another protocol", out refusal);
        if (message[5] != Version)
        {
            refusal = new LinkRefusal(LinkRefusalCode.UnsupportedVersion, $"link version {message[5]} is not spoken here, only {Version}");
            return false;
        }

        if (message.Length < FixedBytes)
            return Fail($"HELLO of {message.Length} bytes; version 1 has at least {FixedBytes}", out refusal);
        if (message[6] > 1)
            return Fail($"HELLO with role {message[6]}; it is 0 (client) or 1 (server)", out refusal);
        if (message[7] > 1)
            return Fail($"HELLO of kind {message[7]}; it is 0 (new) or 1 (resume)", out refusal);

        var role = (LinkRole)message[6];
        var isResume = message[7] == 1;
        var id = LinkId.FromBytes(message.Slice(8, LinkId.Length));
        if ((id == LinkId.None) != (role == LinkRole.Client && !isResume))
            return Fail("HELLO whose link id does not fit its kind: zeros in a client's for a new link, and only there", out refusal);

        var attempt = BinaryPrimitives.ReadUInt32BigEndian(message[24..]);
        if (attempt == 0)
            return Fail("HELLO with attempt 0; the first is 1", out refusal);
        var next = BinaryPrimitives.ReadInt64BigEndian(message[28..]);
        if (next < 0 || (!isResume && next != 0))
            return Fail("HELLO with an impossible next offset: 0 for a new link, at most 2^63 - 1 for one that resumes", out refusal);
        var replayWindow = ReadCapped(message[36..]);
        var receiveWindow = ReadCapped(message[40..]);
        if (replayWindow == 0 || receiveWindow == 0)
            return Fail("HELLO with a window of 0 bytes; both are at least 1", out refusal);

        var featureBytes = BinaryPrimitives.ReadUInt16BigEndian(message[52..]);
        if (featureBytes > LinkRecord.MaxFeatureBytes)
            return Fail($"HELLO with {featureBytes} bytes of features; the limit is {LinkRecord.MaxFeatureBytes}", out refusal);
        var tail = isResume || role == LinkRole.Server ? LinkSecret.Length : 0;
        var proven = FixedBytes + featureBytes;
        if (message.Length != proven + tail)
            return Fail($"HELLO of {message.Length} bytes; its fields say {proven + tail}", out refusal);
        if (!TryReadFeatures(message.Slice(FixedBytes, featureBytes), out var features))
            return Fail("HELLO whose feature list ends in the middle of a feature", out refusal);

        hello = new LinkHello
        {
            Role = role,
            IsResume = isResume,
            LinkId = id,
            Attempt = attempt,
            NextOffset = next,
            ReplayWindowBytes = replayWindow,
            ReceiveWindowBytes = receiveWindow,
            KeepAliveInterval = TimeSpan.FromMilliseconds(BinaryPrimitives.ReadUInt32BigEndian(message[44..])),
            ResumeWindow = TimeSpan.FromMilliseconds(BinaryPrimitives.ReadUInt32BigEndian(message[48..])),
            Features = features,
            Secret = !isResume && role == LinkRole.Server ? new LinkSecret(message[proven..]) : null,
            Proof = isResume ? message[proven..].ToArray() : default,
            Proven = isResume ? message[..proven].ToArray() : default,
        };
        refusal = null;
        return true;
    }

    /// <summary>
    /// The first mandatory feature that is not among <paramref name="known"/>, as the refusal to send; null if there is none.
    /// Optional ones that are not known mean nothing.
    /// </summary>
    public LinkRefusal? RefuseUnknownFeatures(IReadOnlyCollection<ushort> known)
    {
        ArgumentNullException.ThrowIfNull(known);
        var unknown = Features.FirstOrDefault(feature => feature.IsMandatory && !known.Contains(feature.Id));
        return unknown is null
            ? null
            : new LinkRefusal(LinkRefusalCode.UnsupportedFeature, $"mandatory feature 0x{unknown.Id:x4} is not known here; upgrade this side or turn the feature off");
    }

    /// <summary>
    /// The client's HELLO: with <paramref name="secret"/> it resumes, without it asks for a new link.
    /// The caller owns the reference.
    /// </summary>
    /// <param name="secret">The secret of the link, or null.</param>
    /// <param name="proof">What <see cref="ServerProves"/> needs of a HELLO that resumes.</param>
    internal ByteSlice ToClientMessage(LinkSecret? secret, out byte[] proof)
    {
        var message = Write(tail: secret is null ? 0 : LinkSecret.Length, out var proven);
        proof = [];
        if (secret is not null)
        {
            proof = new byte[LinkSecret.Length];
            secret.ProveClient(message.Span[..proven], proof);
            proof.CopyTo(message.Chunk!.Array.AsSpan(message.Offset + proven));
        }

        return message;
    }

    /// <summary>The server's HELLO: the secret for a new link, a proof of it for one that resumes. The caller owns the reference.</summary>
    internal ByteSlice ToServerMessage(LinkSecret secret, ReadOnlySpan<byte> clientProof)
    {
        var message = Write(LinkSecret.Length, out var proven);
        var tail = message.Chunk!.Array.AsSpan(message.Offset + proven, LinkSecret.Length);
        if (IsResume)
            secret.ProveServer(clientProof, message.Span[..proven], tail);
        else
            secret.CopyTo(tail);
        return message;
    }

    /// <summary>Whether the sender of this client's HELLO holds the secret; in constant time.</summary>
    internal bool ClientProves(LinkSecret secret)
    {
        Span<byte> expected = stackalloc byte[LinkSecret.Length];
        secret.ProveClient(Proven.Span, expected);
        return LinkSecret.Equal(expected, Proof.Span);
    }

    /// <summary>Whether the sender of this server's HELLO holds the secret and answers that very client's HELLO; in constant time.</summary>
    internal bool ServerProves(LinkSecret secret, ReadOnlySpan<byte> clientProof)
    {
        Span<byte> expected = stackalloc byte[LinkSecret.Length];
        secret.ProveServer(clientProof, Proven.Span, expected);
        return LinkSecret.Equal(expected, Proof.Span);
    }

    private ByteSlice Write(int tail, out int proven)
    {
        var featureBytes = Features.Sum(feature => 4 + feature.Value.Length);
        if (featureBytes > LinkRecord.MaxFeatureBytes)
            throw new InvalidOperationException($"The features take {featureBytes} bytes; the limit is {LinkRecord.MaxFeatureBytes}.");

        proven = FixedBytes + featureBytes;
        var message = LinkRecordWriter.Rent(proven + tail);
        var span = message.Chunk!.Array.AsSpan(message.Offset, message.Length);
        span[0] = (byte)LinkRecordType.Hello;
        BinaryPrimitives.WriteUInt32BigEndian(span[1..], Magic);
        span[5] = Version;
        span[6] = (byte)Role;
        span[7] = IsResume ? (byte)1 : (byte)0;
        LinkId.CopyTo(span.Slice(8, LinkId.Length));
        BinaryPrimitives.WriteUInt32BigEndian(span[24..], Attempt);
        BinaryPrimitives.WriteInt64BigEndian(span[28..], NextOffset);
        BinaryPrimitives.WriteInt32BigEndian(span[36..], ReplayWindowBytes);
        BinaryPrimitives.WriteInt32BigEndian(span[40..], ReceiveWindowBytes);
        BinaryPrimitives.WriteUInt32BigEndian(span[44..], Milliseconds(KeepAliveInterval));
        BinaryPrimitives.WriteUInt32BigEndian(span[48..], Milliseconds(ResumeWindow));
        BinaryPrimitives.WriteUInt16BigEndian(span[52..], (ushort)featureBytes);
        var rest = span[FixedBytes..];
        foreach (var feature in Features)
        {
            BinaryPrimitives.WriteUInt16BigEndian(rest, feature.Id);
            rest[2] = feature.IsMandatory ? (byte)1 : (byte)0;
            rest[3] = (byte)feature.Value.Length;
            feature.Value.Span.CopyTo(rest[4..]);
            rest = rest[(4 + feature.Value.Length)..];
        }

        return message;
    }

    /// <summary>Rounded up: what is not zero must not become zero, which means never.</summary>
    private static uint Milliseconds(TimeSpan time) => (uint)Math.Ceiling(time.TotalMilliseconds);

    private static int ReadCapped(ReadOnlySpan<byte> span) => (int)Math.Min(BinaryPrimitives.ReadUInt32BigEndian(span), int.MaxValue);

    private static bool TryReadFeatures(ReadOnlySpan<byte> span, out List<LinkFeature> features)
    {
        features = [];
        while (!span.IsEmpty)
        {
            if (span.Length < 4 || span.Length < 4 + span[3])
                return false;
            // Flag bits other than the lowest are reserved and ignored.
            features.Add(new LinkFeature(BinaryPrimitives.ReadUInt16BigEndian(span), (span[2] & 1) != 0, span.Slice(4, span[3]).ToArray()));
            span = span[(4 + span[3])..];
        }

        return true;
    }

    private static bool Fail(string what, out LinkRefusal? refusal)
    {
        refusal = new LinkRefusal(LinkRefusalCode.Malformed, what);
        return false;
    }
}
