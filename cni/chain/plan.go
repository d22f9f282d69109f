// Package chain owns the plugin's place on the node: its binary, and its entry
// at the end of the node's chain of CNI plugins, put there atomically, watched,
// and put back whenever another program takes it away.
//
// It writes a network configuration of its own, which sorts before the primary
// one and is the primary one with our plugin behind: so no other program ever
// rewrites the file that the runtime reads, and after a reboot, before the
// agent runs, pods wait. Where the primary configuration sorts before ours, the
// entry is put into that one.
//
// It refuses to decide about pods and to uninstall by itself: an agent that
// ends leaves the plugin in place. The cni package calls it.
package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// OwnFile is the configuration that we write.
const OwnFile = "00-ambit-cni.conflist"

// ErrNoPrimary says that the node has no network configuration yet.
var ErrNoPrimary = errors.New("the node has no network configuration to chain into")

// Change is what has to be done to a configuration directory; empty if nothing.
type Change struct {
	Write  map[string][]byte
	Remove []string
}

// Entry is the plugin's part of a configuration; Type names the plugin.
type Entry struct {
	Type              string   `json:"type"`
	AgentSocket       string   `json:"agentSocket,omitempty"`
	ExcludeNamespaces []string `json:"excludeNamespaces"`
}

// Plan says what makes the plugin the last of the node's chain. files are the
// directory's configurations by name. If the primary one cannot be read just
// now, as while another program writes it, what is there stays.
func Plan(files map[string][]byte, e Entry) (Change, error) {
	primary, ok := primaryOf(files)
	if !ok {
		return Change{}, ErrNoPrimary
	}
	chained, err := withEntry(files[primary], e)
	if err != nil {
		return Change{}, fmt.Errorf("chaining into %s: %w", primary, err)
	}
	c := Change{Write: map[string][]byte{}}
	if OwnFile < primary {
		c.Write[OwnFile] = chained
		// An earlier installation may have chained in place.
		if bare, had, err := withoutEntry(files[primary], e.Type); err == nil && had {
			c.Write[primary] = bare
		}
	} else {
		in := strings.TrimSuffix(primary, filepath.Ext(primary)) + ".conflist"
		c.Write[in] = chained
		if in != primary {
			c.Remove = append(c.Remove, primary)
		}
		if files[OwnFile] != nil {
			c.Remove = append(c.Remove, OwnFile)
		}
	}
	maps.DeleteFunc(c.Write, func(name string, b []byte) bool { return sameJSON(b, files[name]) })
	return c, nil
}

// Unplan says what takes the plugin out of every configuration.
func Unplan(files map[string][]byte, plugin string) Change {
	c := Change{Write: map[string][]byte{}}
	for name, b := range files {
		if name == OwnFile {
			c.Remove = append(c.Remove, name)
		} else if bare, had, err := withoutEntry(b, plugin); err == nil && had {
			c.Write[name] = bare
		}
	}
	return c
}

// primaryOf is the configuration that the runtime would use without us.
func primaryOf(files map[string][]byte) (string, bool) {
	names := slices.Sorted(maps.Keys(files))
	names = slices.DeleteFunc(names, func(n string) bool { return n == OwnFile || !isConf(n) })
	if len(names) == 0 {
		return "", false
	}
	return names[0], true
}

// isConf reports whether container runtimes read a file of that name.
func isConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// object keeps what it does not know as it was.
type object = map[string]json.RawMessage

// withEntry makes a list of a configuration, with the entry as its last plugin.
func withEntry(conf []byte, e Entry) ([]byte, error) {
	list, err := asList(conf)
	if err != nil {
		return nil, err
	}
	plugins, _, err := others(list, e.Type)
	if err != nil {
		return nil, err
	}
	if len(plugins) == 0 {
		return nil, errors.New("it has no plugins")
	}
	own, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding the plugin's entry: %w", err)
	}
	return encode(list, append(plugins, own))
}

func withoutEntry(conf []byte, plugin string) (bare []byte, had bool, err error) {
	var list object
	if err := json.Unmarshal(conf, &list); err != nil || list["plugins"] == nil {
		return nil, false, err
	}
	plugins, had, err := others(list, plugin)
	if err != nil || !had {
		return nil, false, err
	}
	bare, err = encode(list, plugins)
	return bare, true, err
}

// asList turns a configuration of one plugin into a list.
func asList(conf []byte) (object, error) {
	var o object
	if err := json.Unmarshal(conf, &o); err != nil {
		return nil, fmt.Errorf("it is no valid JSON: %w", err)
	}
	if o["plugins"] != nil {
		return o, nil
	}
	if o["type"] == nil {
		return nil, errors.New("it is no network configuration")
	}
	list := object{"name": o["name"], "cniVersion": o["cniVersion"]}
	maps.DeleteFunc(list, func(_ string, v json.RawMessage) bool { return v == nil })
	delete(o, "name")
	delete(o, "cniVersion")
	plugin, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encoding the plugin: %w", err)
	}
	list["plugins"], err = json.Marshal([]json.RawMessage{plugin})
	return list, err
}

// others are the list's plugins except those of one type.
func others(list object, plugin string) (rest []json.RawMessage, had bool, err error) {
	var all []json.RawMessage
	if err := json.Unmarshal(list["plugins"], &all); err != nil {
		return nil, false, fmt.Errorf("reading its plugins: %w", err)
	}
	for _, p := range all {
		var kind struct{ Type string }
		if err := json.Unmarshal(p, &kind); err != nil {
			return nil, false, fmt.Errorf("reading its plugins: %w", err)
		}
		if kind.Type == plugin {
			had = true
		} else {
			rest = append(rest, p)
		}
	}
	return rest, had, nil
}

func encode(list object, plugins []json.RawMessage) ([]byte, error) {
	b, err := json.Marshal(plugins)
	if err != nil {
		return nil, fmt.Errorf("encoding plugins: %w", err)
	}
	out := maps.Clone(list)
	out["plugins"] = b
	b, err = json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the configuration: %w", err)
	}
	return append(b, '\n'), nil
}

// sameJSON compares without regard to layout.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
