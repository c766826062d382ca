namespace VTunnel.Testing.Diagnostics;

/// <summary>Lines in the order in which they came, to be waited for. Thread-safe.</summary>
public sealed class LineLog
{
    private readonly Lock _gate = new();
    private readonly List<string> _lines = [];
    private TaskCompletionSource _changed = NewSignal();
    private string? _end;

    /// <summary>How many lines there are: a place from which to wait for later ones.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
                return _lines.Count;
        }
    }

    /// <summary>All lines so far.</summary>
    public IReadOnlyList<string> Lines
    {
        get
        {
            lock (_gate)
                return [.. _lines];
        }
    }

    /// <summary>Appends a line.</summary>
    public void Add(string line)
    {
        lock (_gate)
        {
            _lines.Add(line);
            Signal();
        }
    }

    /// <summary>Says that no more lines will come, and why: whoever waits fails at once.</summary>
    public void End(string reason)
    {
        lock (_gate)
        {
            _end ??= reason;
            Signal();
        }
    }

    /// <summary>Waits for a line that contains <paramref name="part"/>, among those there are, from <paramref name="from"/> on, and those to come.</summary>
    public Task<string> WaitForAsync(string part, int from = 0, TimeSpan? timeout = null) =>
        WaitForAsync(line => line.Contains(part, StringComparison.Ordinal), $"a line with '{part}'", from, timeout);

    /// <summary>Waits until there are as many lines that contain <paramref name="part"/>.</summary>
    public Task WaitForCountAsync(string part, int count, TimeSpan? timeout = null)
    {
        var left = count;
        return left == 0
            ? Task.CompletedTask
            : WaitForAsync(line => line.Contains(part, StringComparison.Ordinal) && --left == 0, $"line {count} with '{part}'", 0, timeout);
    }

    /// <summary>Waits for a line.</summary>
    /// <param name="predicate">Which line.</param>
    /// <param name="what">The line in words, for the failure.</param>
    /// <param name="from">Lines before this place do not count.</param>
    /// <param name="timeout">Default <see cref="TestTimeouts.Step"/>.</param>
    /// <exception cref="TimeoutException">It did not come in time, or cannot come any more; the message has all lines.</exception>
    public async Task<string> WaitForAsync(Func<string, bool> predicate, string what, int from = 0, TimeSpan? timeout = null)
    {
        using var deadline = new CancellationTokenSource(timeout ?? TestTimeouts.Step);
        while (true)
        {
            Task changed;
            string? end;
            lock (_gate)
            {
                for (; from < _lines.Count; from++)
                {
                    if (predicate(_lines[from]))
                        return _lines[from];
                }

                changed = _changed.Task;
                end = _end;
            }

            if (end is not null)
                throw new TimeoutException($"{what} did not come: {end}\n{Text()}");
            try
            {
                await changed.WaitAsync(deadline.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                throw new TimeoutException($"{what} did not come in {timeout ?? TestTimeouts.Step}\n{Text()}");
            }
        }
    }

    /// <summary>How many lines contain <paramref name="part"/>.</summary>
    public int CountOf(string part) => Lines.Count(line => line.Contains(part, StringComparison.Ordinal));

    /// <summary>Everything, for a failure's message.</summary>
    public string Text() => string.Join('\n', Lines.Select(line => "    " + line));

    private void Signal()
    {
        _changed.TrySetResult();
        _changed = NewSignal();
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
