namespace VTunnel.Targets.Http;

/// <summary>
/// Looks at what the target sends from the moment an upgrade is asked for, and tells whether it is 101. It reads the
/// status line and nothing beyond it, except over the heads of interim answers.
/// </summary>
/// <remarks>
/// It takes the first byte for the beginning of the answer. That holds for every visitor who has read the earlier
/// answers before he asks for an upgrade; one who has not finds his upgrade refused by the parser of his next request.
/// </remarks>
internal sealed class UpgradeWatch
{
    private const int StatusLineStart = 12;

    private static readonly byte[] Version = "HTTP/1."u8.ToArray();

    private readonly TaskCompletionSource<bool> _switched = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly byte[] _start = new byte[StatusLineStart];
    private int _length;
    private int _lineEnds;

    /// <summary>Whether the connection belongs to another protocol from now on. False too when it ended before that was said.</summary>
    public Task<bool> Switched => _switched.Task;

    /// <summary>Looks at the next bytes from the target; none at the end of the stream.</summary>
    /// <returns>Whether the matter is settled.</returns>
    public bool Inspect(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty)
            return Settle(false);

        foreach (var b in bytes)
        {
            if (_length < StatusLineStart)
            {
                _start[_length++] = b;
                if (_length < StatusLineStart)
                    continue;
                // "HTTP/1.1 101": an answer other than an interim one is a refusal.
                if (!_start.AsSpan().StartsWith(Version) || _start[9] != '1')
                    return Settle(false);
                if (_start[10] == '0' && _start[11] == '1')
                    return Settle(true);
                _lineEnds = 0;
            }
            else if (b == '\n' && ++_lineEnds == 2)
            {
                _length = 0;
            }
            else if (b is not ((byte)'\r' or (byte)'\n'))
            {
                _lineEnds = 0;
            }
        }

        return false;
    }

    /// <summary>Settles it, for whatever reason it will not be settled otherwise.</summary>
    public bool Settle(bool switched)
    {
        _switched.TrySetResult(switched);
        return true;
    }
}
