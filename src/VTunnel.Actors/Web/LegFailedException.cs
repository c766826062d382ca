namespace VTunnel.Web;

/// <summary>A request cannot be carried because a leg of its way failed; the message is for whoever sent it.</summary>
/// <param name="status">The status of the answer: 403, 502 or 504.</param>
/// <param name="message">Which leg failed and why, in words.</param>
/// <param name="inner">What it came from.</param>
internal sealed class LegFailedException(int status, string message, Exception? inner = null) : IOException(message, inner)
{
    public int Status { get; } = status;

    /// <summary>The first one among an exception and what caused it.</summary>
    public static LegFailedException? Find(Exception? exception)
    {
        for (; exception is not null; exception = exception.InnerException)
        {
            if (exception is LegFailedException failure)
                return failure;
        }

        return null;
    }
}
