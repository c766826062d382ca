using System.CommandLine;
using System.Globalization;
using VTunnel.Bench.Candidates;
using VTunnel.Bench.Scenarios;

namespace VTunnel.Bench.Commands;

/// <summary>The options of <c>tunnel</c> and <c>compare</c>.</summary>
internal static class TunnelOptions
{
    public static Command Create(string name, string description, bool withPeers, Func<BenchPlan, string?, int> run, string[] arguments)
    {
        var scenario = List("--scenario", withPeers ? "throughput,latency,connects" : string.Join(',', BenchPlan.StandardScenarios), [.. BenchPlan.StandardScenarios, "proxy", "volume", "scale", "bridge"]);
        scenario.Description = $"What to measure, with commas between: {string.Join(", ", BenchPlan.StandardScenarios)}; proxy, the HTTP proxy beside nginx; volume, memory after moving much, which takes long; scale, thousands of streams and of sessions; and bridge, two networks through a relay.";
        var protocol = List("--protocol", "v2,v1", ["v1", "v2"]);
        protocol.Description = "Protocols of the program, with commas between.";
        var streams = Numbers("--streams", [1, 8, 64]);
        streams.Description = "Numbers of streams for throughput, 1 to 1000, with commas between.";
        var connecting = Numbers("--connecting", [BenchPlan.StandardConnecting]);
        connecting.Description = "How many connect at once for connects, 1 to 1000, with commas between.";
        var seconds = new Option<double>("--seconds") { Description = "How long each measurement takes.", DefaultValueFactory = _ => 0.25 };
        var rounds = new Option<int>("--rounds") { Description = "How often everything is measured.", DefaultValueFactory = _ => 3 };
        var idleStreams = new Option<int>("--idle-streams") { Description = "How many streams the scenario idle opens.", DefaultValueFactory = _ => 2000 };
        var scaleStreams = new Option<int>("--scale-streams") { Description = "How many streams the scenario scale opens on one session.", DefaultValueFactory = _ => 10_000 };
        var scaleSessions = new Option<int>("--scale-sessions") { Description = "How many sessions the scenario scale opens on one server.", DefaultValueFactory = _ => 1000 };
        var volume = new Option<double>("--gigabytes") { Description = "How much the scenario volume moves.", DefaultValueFactory = _ => 20 };
        var json = new Option<string?>("--json") { Description = "Write the figures to this file, too; docs/bench.md describes it." };
        var program = new Option<string?>("--program") { Description = "The vtunnel program to measure; default: published from the sources beside the bench." };
        var peers = new Option<string>("--peers") { Description = "A file that says how other tunnels are started; bench/peers/openssh.json is an example.", Required = true };
        Check(seconds, value => value is >= 0.05 and <= 600, "0.05 to 600");
        Check(rounds, value => value is >= 1 and <= 1000, "1 to 1000");
        Check(idleStreams, value => value is >= 1 and <= 15_000, "1 to 15000");
        Check(scaleStreams, value => value is >= 1 and <= 20_000, "1 to 20000");
        Check(scaleSessions, value => value is >= 1 and <= 9_000, "1 to 9000");
        Check(volume, value => value is >= 2 and <= 100_000, "2 to 100000");
        program.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string>() is { } file && !File.Exists(file))
                result.AddError($"--program '{file}': there is no such file");
        });

        var command = new Command(name, description);
        foreach (var option in (Option[])[scenario, protocol, streams, connecting, seconds, rounds, idleStreams, scaleStreams, scaleSessions, volume, json, program])
            command.Options.Add(option);
        if (withPeers)
            command.Options.Add(peers);
        command.SetAction(parsed => run(
            new BenchPlan
            {
                Arguments = arguments,
                Program = parsed.GetValue(program) is { } file ? Path.GetFullPath(file) : "",
                Scenarios = parsed.GetRequiredValue(scenario),
                Protocols = parsed.GetRequiredValue(protocol),
                Streams = parsed.GetRequiredValue(streams),
                Connecting = parsed.GetRequiredValue(connecting),
                Window = TimeSpan.FromSeconds(parsed.GetValue(seconds)),
                Rounds = parsed.GetValue(rounds),
                IdleStreams = parsed.GetValue(idleStreams),
                ScaleStreams = parsed.GetRequiredValue(scaleStreams),
                ScaleSessions = parsed.GetRequiredValue(scaleSessions),
                VolumeGigabytes = parsed.GetValue(volume),
                Peers = withPeers ? PeerFile.Read(parsed.GetRequiredValue(peers)).Peers : [],
            },
            parsed.GetValue(json)));
        return command;
    }

    private static Option<string[]> List(string name, string defaults, string[] known) => new(name)
    {
        DefaultValueFactory = _ => defaults.Split(','),
        CustomParser = result =>
        {
            var values = result.Tokens.SelectMany(token => token.Value.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)).Distinct().ToArray();
            foreach (var value in values.Except(known))
                result.AddError($"{name} '{value}': it is one of {string.Join(", ", known)}");
            if (values.Length == 0)
                result.AddError($"{name}: it needs at least one of {string.Join(", ", known)}");
            return values;
        },
    };

    private static Option<int[]> Numbers(string name, int[] defaults) => new(name)
    {
        DefaultValueFactory = _ => defaults,
        CustomParser = result =>
        {
            var numbers = new List<int>();
            foreach (var text in result.Tokens.SelectMany(token => token.Value.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)))
            {
                if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number is >= 1 and <= 1000)
                    numbers.Add(number);
                else
                    result.AddError($"{name} '{text}': it is a number from 1 to 1000");
            }

            return [.. numbers.Distinct()];
        },
    };

    private static void Check<T>(Option<T> option, Func<T, bool> isValid, string range) => option.Validators.Add(result =>
    {
        if (!result.Errors.Any() && !isValid(result.GetValueOrDefault<T>()!))
            result.AddError($"{option.Name} '{string.Join(' ', result.Tokens.Select(token => token.Value))}': it is {range}");
    });
}
