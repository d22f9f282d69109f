// Command client is the client of the image echo-advanced, which the
// conformance suite runs in pods.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/advanced"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var r advanced.Request
	cmd := &cobra.Command{
		Use: "client URL", Short: "Make requests and print what comes back", Args: cobra.ExactArgs(1), SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.URL = args[0]
			return advanced.Run(cmd.Context(), os.Stdout, r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Method, "method", "", "method of HTTP (default GET)")
	f.StringArrayVarP(&r.Header, "header", "H", nil, "NAME:VALUE (repeatable)")
	f.StringVar(&r.Message, "msg", "", "body of an HTTP request, or what is echoed")
	f.BoolVar(&r.HTTP2, "http2", false, "HTTP/2")
	f.IntVar(&r.Count, "count", 1, "how many requests")
	f.DurationVar(&r.Timeout, "timeout", 5*time.Second, "for each request")
	return cmd
}
