using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using Spectre.Console;
using VTunnel.Bench.Candidates;
using VTunnel.Bench.Children;
using VTunnel.Bench.Commands;
using VTunnel.Bench.Processes;
using VTunnel.Bench.Reports;
using VTunnel.Bench.Results;
using VTunnel.Bench.Scenarios;

namespace VTunnel.Bench;

/// <summary>How users judge the program: <c>dotnet run -c Release --project bench</c>.</summary>
internal static class Program
{
    private const int Failed = 1;
    private const int Usage = 2;
    private const int Interrupted = 130;

    private static async Task<int> Main(string[] arguments)
    {
        // Programs that the bench started must not outlive it, however it is ended.
        using var stopping = new CancellationTokenSource();
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, End);
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, End);
        try
        {
            var parsed = CreateRoot(arguments, stopping.Token).Parse(arguments);
            if (parsed.Errors.Count > 0)
            {
                foreach (var error in parsed.Errors)
                    Console.Error.WriteLine($"bench: {error.Message}");
                return Usage;
            }

            return await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
        }
        catch (BenchException e)
        {
            Console.Error.WriteLine($"bench: {e.Message}");
            return Failed;
        }
        finally
        {
            ChildProgram.EndAll();
        }

        void End(PosixSignalContext context)
        {
            ChildProgram.EndAll();
            Environment.Exit(Interrupted);
        }
    }

    private static RootCommand CreateRoot(string[] arguments, CancellationToken stop)
    {
        var root = new RootCommand("Measures vtunnel against direct TCP, a plain relay, and other tunnels. Without a command: tunnel.");
        var tunnel = TunnelOptions.Create("tunnel", "Measure the program.", withPeers: false, (plan, json) => Measure(plan, json, stop), arguments);
        root.Subcommands.Add(tunnel);
        root.Subcommands.Add(TunnelOptions.Create("compare", "Measure other tunnels beside the program, in the same rounds.", withPeers: true, (plan, json) => Measure(plan, json, stop), arguments));
        root.Subcommands.Add(CreateMicro());
        root.Subcommands.Add(CreateReport());
        root.Subcommands.Add(CreateRelay());
        root.Subcommands.Add(CreateDelayLine());
        root.Subcommands.Add(CreateTarget());
        root.SetAction(_ => tunnel.Parse([]).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }));
        return root;
    }

    private static int Measure(BenchPlan plan, string? json, CancellationToken stop)
    {
        if (!OperatingSystem.IsLinux())
            throw new BenchException("processor time and memory of other processes are read from Linux's /proc: run the bench on Linux");
        var progress = Progress.ToStandardError();
        if (plan.Program.Length == 0)
        {
            progress.Next("publishing the program");
            plan = plan with { Program = PublishedProgram.Make() };
        }

        using var bench = new TunnelBench(plan, progress, stop);
        var result = bench.Run();
        progress.End();
        if (json is not null)
            File.WriteAllText(json, JsonSerializer.Serialize(result, BenchJson.Default.BenchResult) + "\n");
        var console = AnsiConsole.Create(new AnsiConsoleSettings());
        if (Console.IsOutputRedirected)
            console.Profile.Width = 200;
        Tables.Write(result, console);
        console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{result.Seconds:0} s. ± is half the range of {result.Rounds} rounds; in brackets the ratio to the plain relay (floor)."));
        return 0;
    }

    private static Command CreateMicro()
    {
        var rest = new Argument<string[]>("arguments") { Description = "Arguments of BenchmarkDotNet, such as --filter '*V1*'.", Arity = ArgumentArity.ZeroOrMore };
        var command = new Command("micro", "Run the micro-benchmarks.") { TreatUnmatchedTokensAsErrors = false };
        command.Arguments.Add(rest);
        command.SetAction(parsed => Micro.MicroBenchmarks.Run([.. parsed.GetValue(rest) ?? [], .. parsed.UnmatchedTokens]));
        return command;
    }

    private static Command CreateReport()
    {
        var file = new Argument<FileInfo>("json") { Description = "What --json wrote." };
        var page = new Option<string>("--page") { Description = "The page to write the figures into.", DefaultValueFactory = _ => "docs/performance.md" };
        var command = new Command("report", "Write the figures of a run into docs/performance.md, with charts.");
        command.Arguments.Add(file);
        command.Options.Add(page);
        command.SetAction(parsed =>
        {
            var path = parsed.GetRequiredValue(file).FullName;
            foreach (var written in PerformancePage.Update(Read(path), parsed.GetRequiredValue(page)))
                Console.WriteLine(written);
        });
        return command;
    }

    private static BenchResult Read(string path)
    {
        try
        {
            var result = JsonSerializer.Deserialize(File.ReadAllText(path), BenchJson.Default.BenchResult);
            return result?.Schema == BenchResult.CurrentSchema
                ? result
                : throw new BenchException($"{path}: schema '{result?.Schema}'; this bench reads '{BenchResult.CurrentSchema}'");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new BenchException($"{path}: {e.Message}", e);
        }
    }

    private static Command CreateRelay()
    {
        var target = new Argument<int>("target-port");
        var listen = new Option<int>("--listen");
        var fault = new Option<RelayFault>("--fault");
        var at = new Option<long>("--at");
        var command = new Command("relay", "One hop of the plain relay.") { Hidden = true };
        command.Arguments.Add(target);
        command.Options.Add(listen);
        command.Options.Add(fault);
        command.Options.Add(at);
        command.SetAction((parsed, _) => RelayHelper.RunAsync(parsed.GetValue(target), parsed.GetValue(listen), parsed.GetValue(fault), parsed.GetValue(at)));
        return command;
    }

    private static Command CreateDelayLine()
    {
        var target = new Argument<int>("target-port");
        var roundTrip = new Argument<double>("milliseconds");
        var command = new Command("delay-line", "A line with a round trip.") { Hidden = true };
        command.Arguments.Add(target);
        command.Arguments.Add(roundTrip);
        command.SetAction(parsed => DelayLineHelper.Run(parsed.GetValue(target), TimeSpan.FromMilliseconds(parsed.GetValue(roundTrip))));
        return command;
    }

    private static Command CreateTarget()
    {
        var command = new Command("target", "The load target by itself.") { Hidden = true };
        command.SetAction(_ => TargetHelper.Run());
        return command;
    }
}
