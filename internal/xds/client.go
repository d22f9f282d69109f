package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"
)

// Config configures a Client.
type Config struct {
	// Address is the control plane's host:port.
	Address string
	// ServerName is the name its certificate must have; empty is Address's host.
	ServerName string
	// RootFile holds the PEM roots that the server must chain to. It is read
	// at each connection.
	RootFile string
	// TokenFile holds the bearer token, read for each stream; empty sends none.
	TokenFile string
	// ClusterID is sent as "clusterid"; empty sends none.
	ClusterID string
	// Node is how the client introduces itself; its ID must be set.
	Node Node
	// Types are subscribed in this order; empty is policies and addresses.
	Types []string
	// Held is what the Receiver has already, by type: name to version.
	Held map[string]map[string]string
	// Receiver gets the updates; must be set.
	Receiver Receiver
	// MaxMessage is the longest response that is taken; 0 is 200 MiB.
	MaxMessage int
	// Dial connects; nil is TCP with a 5 s timeout.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Node is a client's description of itself (dataplane spec 4.2).
type Node struct {
	ID       string
	Metadata map[string]any
}

// Client keeps one delta xDS stream to a control plane and gives what arrives
// to its Receiver. What it has stays valid while the control plane is away.
type Client struct {
	cfg    Config
	status connStatus
	synced chan struct{}

	// Below: Run's goroutine only.

	// held is by type what the Receiver has: name to version, the version
	// empty once the receiver rejected a newer one.
	held map[string]map[string]string
	// waiting are the types without a first response.
	waiting map[string]bool
}

// NewClient makes a client; nothing happens before Run.
func NewClient(cfg Config) *Client {
	if len(cfg.Types) == 0 {
		cfg.Types = []string{TypeAuthorization, TypeAddress}
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = maxMessage
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	c := &Client{cfg: cfg, synced: make(chan struct{}), held: map[string]map[string]string{}, waiting: map[string]bool{}}
	for _, typ := range cfg.Types {
		c.held[typ] = maps.Clone(cfg.Held[typ])
		if c.held[typ] == nil {
			c.held[typ] = map[string]string{}
		}
		c.waiting[typ] = true
	}
	return c
}

// Synced is closed once every type had its first response. Unlike upstream a
// response with rejected resources counts: one bad object must not keep a
// node's traffic from starting (dataplane spec 11.6).
func (c *Client) Synced() <-chan struct{} { return c.synced }

// Run connects, and connects again, until ctx ends. It returns nil then, and
// an error only for a configuration that cannot work.
func (c *Client) Run(ctx context.Context) error {
	if err := c.cfg.check(); err != nil {
		return err
	}
	wait := backoff{}
	for {
		contact, err := c.connect(ctx)
		if ctx.Err() != nil {
			c.status.disconnected(nil)
			return nil
		}
		c.status.disconnected(err)
		if contact {
			wait.reset()
		}
		delay := wait.next()
		c.cfg.Logger.Warn("control plane disconnected", "address", c.cfg.Address, "reason", err, "retry", delay.String())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Config) check() error {
	switch {
	case c.Address == "":
		return errors.New("xds client: no address of the control plane")
	case c.Node.ID == "":
		return errors.New("xds client: no node id")
	case c.Receiver == nil:
		return errors.New("xds client: no receiver")
	case c.RootFile == "":
		return errors.New("xds client: no file of trusted roots")
	case slices.Contains(c.Types, ""):
		return errors.New("xds client: a type without a name")
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("xds client: address of the control plane: %w", err)
	}
	return nil
}

// receive gives one response to the receiver and remembers what it took. It
// returns the reason to reject, empty to accept.
func (c *Client) receive(ctx context.Context, u Update, rejected []Rejection) string {
	held, asked := c.held[u.Type]
	if !asked {
		// Rejecting would not make the server stop; a newer control plane may
		// offer more than we know.
		c.cfg.Logger.Debug("ignoring a type that was not asked for", "type", u.Type)
		return ""
	}
	rejected = append(rejected, c.cfg.Receiver.Receive(ctx, u)...)
	for _, r := range u.Upserts {
		held[r.Name] = r.Version
	}
	for _, r := range rejected {
		if r.Name != "" {
			held[r.Name] = "" // so that it is sent again, and its removal too
		}
	}
	for _, name := range u.Removed {
		delete(held, name)
	}
	c.firstResponse(u.Type)
	if len(rejected) == 0 {
		return ""
	}
	text := rejections(rejected)
	c.cfg.Logger.Warn("rejecting resources", "type", u.Type, "count", len(rejected), "reason", text)
	return text
}

func (c *Client) firstResponse(typ string) {
	if !c.waiting[typ] {
		return
	}
	delete(c.waiting, typ)
	if len(c.waiting) == 0 {
		close(c.synced)
	}
}
