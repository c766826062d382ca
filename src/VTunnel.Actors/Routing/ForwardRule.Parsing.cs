using System.Diagnostics.CodeAnalysis;

namespace VTunnel.Routing;

public sealed partial record ForwardRule
{
    /// <summary>
    /// Reads <c>PORT=HOST:PORT</c>, <c>PORT=tcp://HOST:PORT</c> or <c>PORT=tls://HOST[:PORT]</c> (port 443 unless given);
    /// an IPv6 host stands in brackets.
    /// </summary>
    /// <param name="text">As the user wrote it; blanks around its parts are ignored.</param>
    /// <param name="rule">The forward, or null.</param>
    /// <param name="problem">What is wrong and what would be right, or null.</param>
    public static bool TryParse(string? text, [NotNullWhen(true)] out ForwardRule? rule, [NotNullWhen(false)] out string? problem) =>
        ForwardParser.TryParseRule(text, out rule, out problem);

    /// <summary>Reads a forward as <see cref="TryParse"/> does.</summary>
    /// <exception cref="FormatException">It is not one; the message says what would be right.</exception>
    public static ForwardRule Parse(string text) =>
        TryParse(text, out var rule, out var problem) ? rule : throw new FormatException($"'{text}': {problem}");
}
