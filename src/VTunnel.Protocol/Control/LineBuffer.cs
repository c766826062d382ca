using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Control;

/// <summary>Finds the lines in bytes that arrive cut anywhere. Holds at most one unfinished line.</summary>
/// <param name="limit">Bytes of the longest line, its newline included.</param>
/// <param name="what">What a line is, for the error.</param>
internal sealed class LineBuffer(int limit, string what)
{
    private byte[] _partial = [];
    private int _length;

    /// <summary>Whether a line has begun and not ended.</summary>
    public bool HasPartial => _length > 0;

    /// <summary>Takes the next line from <paramref name="input"/>, or all of it if there is no end of a line in it.</summary>
    /// <param name="input">What is left of it afterwards comes after the line.</param>
    /// <param name="line">The line without its newline; valid until the next call.</param>
    /// <exception cref="SessionProtocolException">The line is longer than the limit.</exception>
    public bool TryRead(ref ReadOnlySpan<byte> input, out ReadOnlySpan<byte> line)
    {
        line = default;
        var end = input.IndexOf((byte)'\n');
        var count = end < 0 ? input.Length : end + 1;
        if (_length + count > limit)
            throw new SessionProtocolException(SessionError.MessageTooLarge, $"A {what} is longer than {limit} bytes.");

        var part = input[..count];
        input = input[count..];
        if (end >= 0 && _length == 0)
        {
            line = part[..^1];
            return true;
        }

        Keep(part);
        if (end < 0)
            return false;

        line = _partial.AsSpan(0, _length - 1);
        _length = 0;
        return true;
    }

    private void Keep(ReadOnlySpan<byte> part)
    {
        if (_length + part.Length > _partial.Length)
            Array.Resize(ref _partial, Math.Min(limit, Math.Max(256, 2 * (_length + part.Length))));
        part.CopyTo(_partial.AsSpan(_length));
        _length += part.Length;
    }
}
