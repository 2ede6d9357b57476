package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

type node struct {
	Name     string           `json:"name"`
	Line     int              `json:"line"`
	Flags    []string         `json:"flags"`
	Args     []string         `json:"args"`
	JSON     bool             `json:"json"`
	Heredocs []parser.Heredoc `json:"heredocs"`
}

func arguments(of *parser.Node) []string {
	found := []string{}
	for n := of.Next; n != nil; n = n.Next {
		if len(n.Children) == 1 {
			found = append(found, n.Children[0].Value)
			found = append(found, arguments(n.Children[0])...)
		} else {
			found = append(found, n.Value)
		}
	}
	return found
}

func parse(asked question) (any, error) {
	result, err := parser.Parse(strings.NewReader(asked.Text))
	if err != nil {
		return nil, err
	}
	stages, _, err := instructions.Parse(result.AST, linter.New(&linter.Config{SkipAll: true}))
	if err != nil {
		return nil, err
	}
	if len(stages) == 0 {
		return nil, errors.New("dockerfile contains no stages to build")
	}
	nodes := []node{}
	for _, child := range result.AST.Children {
		flags := child.Flags
		if flags == nil {
			flags = []string{}
		}
		nodes = append(nodes, node{
			strings.ToUpper(child.Value), child.StartLine, flags, arguments(child),
			child.Attributes["json"], child.Heredocs,
		})
	}
	return nodes, nil
}

func lineOf(err error) int {
	var located *parser.LocationError
	if errors.As(err, &located) && len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
		return located.Locations[0][0].Start.Line
	}
	return 0
}

func expand(asked question) (any, error) {
	lex := shell.NewLex([]rune(asked.Escape)[0])
	env := shell.EnvsFromSlice(asked.Env)
	word, _, err := lex.ProcessWord(asked.Text, env)
	if err != nil {
		return nil, err
	}
	words, err := lex.ProcessWords(asked.Text, env)
	if words == nil {
		words = []string{}
	}
	return map[string]any{"word": word, "words": words}, err
}

// ignore walks the paths from the top, as a build's context is sent: a folder's result counts below it.
func ignore(asked question) (any, error) {
	patterns, err := ignorefile.ReadAll(strings.NewReader(asked.Text))
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	ignored := []bool{}
	for _, path := range asked.Paths {
		var info patternmatcher.MatchInfo
		var one bool
		parts := strings.Split(path, "/")
		for i := range parts {
			one, info, err = matcher.MatchesUsingParentResults(strings.Join(parts[:i+1], "/"), info)
			if err != nil {
				return nil, err
			}
		}
		ignored = append(ignored, one)
	}
	return ignored, nil
}

func glob(asked question) (any, error) {
	matched := []bool{}
	for _, path := range asked.Paths {
		one, err := filepath.Match(asked.Text, path)
		if err != nil {
			return nil, err
		}
		matched = append(matched, one)
	}
	return matched, nil
}
