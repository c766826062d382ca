using System.Diagnostics.CodeAnalysis;

namespace VTunnel.Testing.Simulation;

/// <summary>Virtual time, what happens when, and all the chance there is: the same seed gives the same run to the last byte.</summary>
public sealed class SimulationWorld
{
    private const int MaxSteps = 2_000_000;
    private const int StepsBetweenLooks = 16;

    private readonly PriorityQueue<Action, (TimeSpan At, long Order)> _queue = new();
    private long _order;

    /// <summary>A world in which nothing has happened yet.</summary>
    public SimulationWorld(int seed) => Random = new Random(seed);

    /// <summary>The only source of chance.</summary>
    public Random Random { get; }

    /// <summary>The time since the world began.</summary>
    public TimeSpan Now { get; private set; }

    /// <summary>Where the story of the run goes; null when nobody listens, and then it costs nothing.</summary>
    public Action<string>? Log { get; set; }

    /// <summary>Does something later. What falls on the same moment happens in the order in which it was asked for.</summary>
    public void After(TimeSpan delay, Action action) => _queue.Enqueue(action, (Now + delay, _order++));

    /// <summary>Lets time pass until <paramref name="isDone"/> (looked at every few steps); false if that did not come about by <paramref name="limit"/>.</summary>
    public bool Run(Func<bool> isDone, TimeSpan limit)
    {
        ArgumentNullException.ThrowIfNull(isDone);
        for (var steps = 0; steps % StepsBetweenLooks != 0 || !isDone(); steps++)
        {
            Check(steps < MaxSteps, $"still busy after {steps} steps, at {Now}: something goes in circles");
            if (!_queue.TryPeek(out _, out var next) || next.At > limit)
            {
                Now = limit;
                return isDone();
            }

            var action = _queue.Dequeue();
            Now = next.At;
            action();
        }

        return true;
    }

    /// <summary>Fails the run unless <paramref name="condition"/> holds.</summary>
    public void Check([DoesNotReturnIf(false)] bool condition, [System.Runtime.CompilerServices.InterpolatedStringHandlerArgument("condition")] ref CheckMessage message)
    {
        if (!condition)
            throw new SimulationFailedException($"at {Now}: {message.ToString()}");
    }

    /// <summary>Writes to the log.</summary>
    public void Tell(string what) => Log?.Invoke($"{Now:mm\\:ss\\.ffffff} {what}");

    /// <summary>True this often, from 0 (never) to 1 (always).</summary>
    public bool Chance(double probability) => Random.NextDouble() < probability;

    /// <summary>Any of these.</summary>
    public T Pick<T>(params ReadOnlySpan<T> choices) => choices[Random.Next(choices.Length)];

    /// <summary>A time between two, in steps of a microsecond.</summary>
    public TimeSpan Between(TimeSpan least, TimeSpan most) =>
        least + TimeSpan.FromMicroseconds(Random.NextInt64((long)(most - least).TotalMicroseconds + 1));

    /// <summary>A number between two, both included; small ones as likely as large ones, in orders of magnitude.</summary>
    public int Magnitude(int least, int most) =>
        (int)Math.Clamp(Math.Round(least * Math.Pow((double)most / least, Random.NextDouble())), least, most);
}

/// <summary>Formats the text of a check only if it fails.</summary>
[System.Runtime.CompilerServices.InterpolatedStringHandler]
public readonly struct CheckMessage
{
    private readonly System.Text.StringBuilder? _text;

    /// <summary>Called by the compiler.</summary>
    public CheckMessage(int literalLength, int formattedCount, bool condition, out bool isNeeded)
    {
        isNeeded = !condition;
        _text = condition ? null : new System.Text.StringBuilder(literalLength + (formattedCount * 16));
    }

    /// <summary>Called by the compiler.</summary>
    public void AppendLiteral(string text) => _text!.Append(text);

    /// <summary>Called by the compiler.</summary>
    public void AppendFormatted<T>(T value) => _text!.Append(value);

    /// <inheritdoc />
    public override string ToString() => _text?.ToString() ?? "";
}

/// <summary>An invariant did not hold.</summary>
public sealed class SimulationFailedException(string message) : Exception(message);
