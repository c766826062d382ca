using System.Text;

namespace VTunnel.Cli.Hosting;

/// <summary>Standard output cannot be written. Not an <see cref="IOException"/>: commands take that for the fault of a file of theirs.</summary>
internal sealed class OutputException(Exception cause) : Exception($"standard output cannot be written: {Reason(cause)}", cause)
{
    /// <summary>The system's own words; .NET speaks of a denied path where a stream is closed.</summary>
    private static string Reason(Exception cause)
    {
        var text = (cause as UnauthorizedAccessException)?.InnerException?.Message ?? cause.Message;
        return text.Length > 1 && char.IsLower(text[1]) ? char.ToLowerInvariant(text[0]) + text[1..] : text;
    }
}

/// <summary>
/// Standard output and standard error of every command. What cannot be written to the first ends the command with a reason in
/// words; what cannot be written to the second is lost, since there is nowhere left to say so.
/// </summary>
internal static class StandardStreams
{
    /// <summary>Takes both over, before anything is written.</summary>
    public static void Install()
    {
        Console.SetOut(Writer(new CheckedStream(Console.OpenStandardOutput, static e => throw new OutputException(e))));
        Console.SetError(Writer(new CheckedStream(Console.OpenStandardError, static _ => { })));
    }

    private static StreamWriter Writer(CheckedStream stream)
    {
        // Only a writer that is made here would begin UTF-8 with a byte order mark.
        var encoding = Console.OutputEncoding is UTF8Encoding ? new UTF8Encoding(encoderShouldEmitUTF8Identifier: false) : Console.OutputEncoding;
        return new StreamWriter(stream, encoding) { AutoFlush = true };
    }

    /// <summary>Opened when it is first written: who writes nothing does not mind that it is closed.</summary>
    private sealed class CheckedStream(Func<Stream> open, Action<Exception> fault) : Stream
    {
        private Stream? _stream;

        public override bool CanRead => false;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override void Write(ReadOnlySpan<byte> buffer)
        {
            try
            {
                (_stream ??= open()).Write(buffer);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                fault(e);
            }
        }

        public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

        public override void Flush()
        {
            // Nothing is kept back here.
        }

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();
    }
}
