namespace VTunnel.Cli;

/// <summary>What the program's exit codes mean. A number is never used for anything else later; docs/cli.md lists them.</summary>
internal static class ExitCodes
{
    /// <summary>Done, or stopped in order by Ctrl-C, SIGTERM or SIGHUP.</summary>
    public const int Success = 0;

    /// <summary>A fault of this program, or output that cannot be written.</summary>
    public const int InternalError = 1;

    /// <summary>The command line, the environment or a file says something that cannot be done; nothing was started.</summary>
    public const int Usage = 2;

    /// <summary>The server's own address cannot be listened on, or a consumer's local port.</summary>
    public const int CannotListen = 3;

    /// <summary>The server cannot be reached or the connection to it was lost, and reconnecting is off.</summary>
    public const int CannotConnect = 4;

    /// <summary>The server refused a forward, and reconnecting is off.</summary>
    public const int ListenRefused = 5;

    /// <summary>The server refused the client itself (401 or 403), and reconnecting is off.</summary>
    public const int AccessRefused = 6;

    /// <summary>The demo did not get its page through the tunnel.</summary>
    public const int DemoFailed = 7;

    /// <summary>The bridge's state directory cannot be read or written, or what is in it is damaged.</summary>
    public const int StateUnusable = 8;

    /// <summary>Status or test: something does not run, or is not connected.</summary>
    public const int NotHealthy = 9;

    /// <summary>Ended at once by a second Ctrl-C, without letting anything finish.</summary>
    public const int Interrupted = 130;
}
