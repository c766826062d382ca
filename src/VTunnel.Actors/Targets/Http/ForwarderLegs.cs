using System.Net.Http;
using Yarp.ReverseProxy.Forwarder;

namespace VTunnel.Targets.Http;

/// <summary>Words for the leg of a forwarded request that failed.</summary>
internal static class ForwarderLegs
{
    /// <summary>What was under way.</summary>
    public static string Describe(ForwarderError error) => error switch
    {
        ForwarderError.RequestCreation => "making the request",
        ForwarderError.Request or ForwarderError.RequestTimedOut or ForwarderError.RequestCanceled => "the request to the target",
        ForwarderError.RequestBodyClient => "reading the request body from the visitor",
        ForwarderError.RequestBodyDestination or ForwarderError.RequestBodyCanceled => "sending the request body to the target",
        ForwarderError.ResponseHeaders => "taking the response headers over",
        ForwarderError.ResponseBodyClient => "sending the response body to the visitor",
        ForwarderError.ResponseBodyDestination or ForwarderError.ResponseBodyCanceled => "reading the response body from the target",
        ForwarderError.UpgradeRequestClient => "reading from the visitor after an upgrade",
        ForwarderError.UpgradeRequestDestination or ForwarderError.UpgradeRequestCanceled => "sending to the target after an upgrade",
        ForwarderError.UpgradeResponseClient => "sending to the visitor after an upgrade",
        ForwarderError.UpgradeResponseDestination or ForwarderError.UpgradeResponseCanceled => "reading from the target after an upgrade",
        _ => error.ToString(),
    };

    /// <summary>The most telling of the exceptions: why the target cannot be reached, if that is why.</summary>
    public static string Cause(Exception? exception)
    {
        var telling = exception;
        for (var e = exception; e is not null; e = e.InnerException)
        {
            telling = e;
            if (e is TargetException or HttpIOException)
                break;
        }

        return telling?.Message.TrimEnd('.') ?? "no reason given";
    }
}
