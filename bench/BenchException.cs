namespace VTunnel.Bench;

/// <summary>A run that cannot be counted: bytes were lost or wrong, a program did not start, something did not answer.</summary>
internal sealed class BenchException(string message, Exception? inner = null) : Exception(message, inner);
