using Microsoft.Extensions.Configuration;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace VTunnel.Cli.Settings;

/// <summary>YAML as a source of configuration, flattened as JSON is: <c>key:0</c> for the first value of a list.</summary>
internal sealed class YamlConfigurationSource : StreamConfigurationSource
{
    public override IConfigurationProvider Build(IConfigurationBuilder builder) => new Provider(this);

    private sealed class Provider(YamlConfigurationSource source) : StreamConfigurationProvider(source)
    {
        public override void Load(Stream stream)
        {
            using var reader = new StreamReader(stream);
            var yaml = new YamlStream();
            yaml.Load(reader);
            if (yaml.Documents.Count > 1)
                throw new YamlException(yaml.Documents[1].RootNode.Start, yaml.Documents[1].RootNode.End, "a second document; write only one");
            if (yaml.Documents.Count == 0)
                return;
            switch (yaml.Documents[0].RootNode)
            {
                case YamlMappingNode mapping:
                    Visit(mapping, "", new HashSet<YamlNode>(ReferenceEqualityComparer.Instance));
                    break;
                case YamlScalarNode { Value: null or "" }:
                    break;
                case var other:
                    throw new YamlException(other.Start, other.End, "no keys; write one 'option: value' per line");
            }
        }

        private void Visit(YamlNode node, string path, HashSet<YamlNode> above)
        {
            // An alias can lead back to what contains it.
            if (!above.Add(node))
                throw new YamlException(node.Start, node.End, "an alias that contains itself");
            switch (node)
            {
                case YamlMappingNode mapping:
                    foreach (var (key, value) in mapping.Children)
                    {
                        if (key is not YamlScalarNode { Value: { Length: > 0 } name })
                            throw new YamlException(key.Start, key.End, "a key that is not a name");
                        Visit(value, path.Length == 0 ? name : ConfigurationPath.Combine(path, name), above);
                    }

                    break;
                case YamlSequenceNode sequence:
                    if (sequence.Children.Count == 0)
                        Data[path] = "";
                    for (var i = 0; i < sequence.Children.Count; i++)
                        Visit(sequence.Children[i], ConfigurationPath.Combine(path, $"{i}"), above);
                    break;
                case YamlScalarNode scalar:
                    if (!Data.TryAdd(path, IsNull(scalar) ? null : scalar.Value))
                        throw new YamlException(node.Start, node.End, $"the key '{path}' is given twice");
                    break;
            }

            above.Remove(node);
        }

        private static bool IsNull(YamlScalarNode scalar) =>
            scalar.Style == ScalarStyle.Plain && scalar.Value is null or "" or "~" or "null" or "Null" or "NULL";
    }
}
