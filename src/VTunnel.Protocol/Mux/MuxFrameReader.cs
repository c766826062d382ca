using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Mux;

/// <summary>What <see cref="MuxFrameReader.Read"/> found.</summary>
public enum MuxRead
{
    /// <summary>The input is used up; append more.</summary>
    NeedMore,

    /// <summary>A header. If it is of a data frame with a length, its payload follows in one or more reads.</summary>
    Header,

    /// <summary>A part of the payload of the header read last.</summary>
    Payload,
}

/// <summary>
/// Finds the frames in a byte stream that arrives in slices cut anywhere. Payload is not copied and not collected:
/// it is handed on in the parts in which it arrives. Allocates nothing after construction.
/// </summary>
public sealed class MuxFrameReader
{
    private readonly byte[] _partial = new byte[MuxFrameHeader.Size];
    private int _partialLength;
    private ByteSlice _input;
    private MuxFrameHeader _header;
    private uint _payloadLeft;

    /// <summary>Payload bytes of the current frame that were not read yet.</summary>
    public uint PayloadLeft => _payloadLeft;

    /// <summary>Takes the next bytes of the stream, and their reference; only after <see cref="MuxRead.NeedMore"/>.</summary>
    public void Append(ByteSlice input)
    {
        if (!_input.IsEmpty)
            throw new InvalidOperationException("Read until NeedMore before appending more.");

        if (input.IsEmpty)
            input.Release();
        else
            _input = input;
    }

    /// <summary>The next header or part of a payload.</summary>
    /// <param name="header">The header found, or the one whose payload this is.</param>
    /// <param name="payload">A part of the payload; the reference is the caller's.</param>
    /// <exception cref="SessionProtocolException">A header is malformed; the stream cannot be read any further.</exception>
    public MuxRead Read(out MuxFrameHeader header, out ByteSlice payload)
    {
        payload = default;
        if (_payloadLeft > 0)
        {
            header = _header;
            if (_input.IsEmpty)
                return MuxRead.NeedMore;

            payload = TakePayload();
            return MuxRead.Payload;
        }

        if (!TryReadHeader(out header))
            return MuxRead.NeedMore;

        _header = header;
        if (header.Type == MuxFrameType.Data)
            _payloadLeft = header.Length;
        return MuxRead.Header;
    }

    /// <summary>Releases what is held.</summary>
    public void Clear()
    {
        _input.Release();
        _input = default;
        _partialLength = 0;
        _payloadLeft = 0;
    }

    private ByteSlice TakePayload()
    {
        var part = _input;
        if ((uint)part.Length <= _payloadLeft)
        {
            // The rest of the input is payload: its reference goes with it.
            _input = default;
        }
        else
        {
            part = _input.RetainPart(0, (int)_payloadLeft);
            _input = _input.Skip(part.Length);
        }

        _payloadLeft -= (uint)part.Length;
        return part;
    }

    private bool TryReadHeader(out MuxFrameHeader header)
    {
        var input = _input.Span;
        if (_partialLength == 0 && input.Length >= MuxFrameHeader.Size)
        {
            header = MuxFrameHeader.Read(input);
            Advance(MuxFrameHeader.Size);
            return true;
        }

        var count = Math.Min(input.Length, MuxFrameHeader.Size - _partialLength);
        input[..count].CopyTo(_partial.AsSpan(_partialLength));
        _partialLength += count;
        Advance(count);
        if (_partialLength < MuxFrameHeader.Size)
        {
            header = default;
            return false;
        }

        header = MuxFrameHeader.Read(_partial);
        _partialLength = 0;
        return true;
    }

    private void Advance(int count)
    {
        if (count < _input.Length)
        {
            _input = _input.Skip(count);
            return;
        }

        _input.Release();
        _input = default;
    }
}
